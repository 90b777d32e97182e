use super::*;
use crate::comm::SingleRank;
use crate::config::{self, Class};
use crate::simulate;
use crate::storage::faults::{KINDS, memory_folder, with_fault};

const SHORT: Duration = Duration::from_millis(100);

/// Returns a plan for a few toy events in `folder`.
fn plan(folder: &Path) -> TrainingPlan {
    let output = folder.join("gamma.h5");
    let (class, events, seed) = (Class::Gamma, 50, 1);
    let options =
        simulate::Options { output: output.clone(), class, events, seed, overwrite: false };
    simulate::run(&options).unwrap();
    let columns = "[features]\ncolumns = [{name = \"size\"}, {name = \"width\"}]";
    let text = format!("[data]\ngamma = [{:?}]\n{columns}\n", output.display().to_string());
    TrainingPlan::new(&SingleRank, &config::parse(&text, &[]).unwrap()).unwrap()
}

/// Creates the files of a run with a checkpoint and a model.
fn old_run(path: &Path, plan: &TrainingPlan) {
    let mut folder = RunFolder::open(path, Existing::Resume, SHORT).unwrap();
    folder.claim_run_folder(plan, |_| false).unwrap();
    folder.add_provenance(&json!("old")).unwrap();
    for name in [MODEL, METRICS, LOG, "checkpoints/step-5/manifest.json"] {
        storage::write_file(&path.join(name), b"old").unwrap();
    }
}

fn is_old(path: &Path) -> bool {
    let is_old = |name: &&str| std::fs::read(path.join(name)).is_ok_and(|b| b == b"old");
    has_run(path)
        && path.join(CONFIG).is_file()
        && [MODEL, METRICS, LOG, "checkpoints/step-5/manifest.json"].iter().all(is_old)
}

/// Starts a run in place of the old one, up to its first checkpoint.
fn replace(path: &Path, plan: &TrainingPlan) -> Result<()> {
    let mut folder = RunFolder::open(path, Existing::Replace, SHORT)?;
    folder.claim_run_folder(plan, |_| false)?;
    folder.add_provenance(&json!("new"))?;
    storage::write_file(&path.join(METRICS), b"new")?;
    storage::write_file(&path.join("checkpoints/step-1/manifest.json"), b"new")?;
    folder.forget_replaced()
}

#[test]
fn failed_operation_leaves_old_or_new_run_whole() {
    let inputs = tempfile::tempdir().unwrap();
    let plan = plan(inputs.path());
    for kind in KINDS {
        for n in 0.. {
            let folder = memory_folder();
            let path = folder.path().join("run");
            old_run(&path, &plan);
            let (outcome, struck) = with_fault(n, kind, || replace(&path, &plan));
            assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
            drop(RunFolder::open(&path, Existing::Resume, SHORT).unwrap());
            let new = checkpoint::any(&path.join(CHECKPOINTS)) && !is_old(&path);
            let aside = is_old(&path.join(REPLACED));
            assert!(is_old(&path) || aside || new, "{kind:?} {n}: both runs are lost");
            assert!(outcome.is_err() || (new && !aside), "{kind:?} {n}");
            // A second attempt succeeds and leaves nothing of the old run.
            replace(&path, &plan).unwrap();
            assert!(!path.join(REPLACED).exists() && !path.join(MODEL).exists());
            if !struck {
                assert!(n > 20, "only {n} operations");
                break;
            }
        }
    }
}

#[test]
fn refused_start_restores_the_old_run() {
    let inputs = tempfile::tempdir().unwrap();
    let plan = plan(inputs.path());
    let path = inputs.path().join("run");
    old_run(&path, &plan);
    drop(RunFolder::open(&path, Existing::Replace, SHORT).unwrap());
    assert!(is_old(&path));
    let mut folder = RunFolder::open(&path, Existing::Replace, SHORT).unwrap();
    folder.claim_run_folder(&plan, |_| false).unwrap();
    assert!(is_old(&path.join(REPLACED)) && !is_old(&path));
    drop(folder); // an error before the new run began
    assert!(is_old(&path) && !path.join(REPLACED).exists());
}

#[test]
fn third_run_over_empty_second_keeps_the_first() {
    let inputs = tempfile::tempdir().unwrap();
    let plan = plan(inputs.path());
    let path = inputs.path().join("run");
    old_run(&path, &plan);
    for _ in 0..2 {
        let mut folder = RunFolder::open(&path, Existing::Replace, SHORT).unwrap();
        folder.claim_run_folder(&plan, |_| false).unwrap();
        folder.add_provenance(&json!("new")).unwrap();
        drop(folder);
        assert!(is_old(&path.join(REPLACED)));
    }
}

#[test]
fn folder_without_a_begun_run_is_free() {
    let inputs = tempfile::tempdir().unwrap();
    let plan = plan(inputs.path());
    let path = inputs.path().join("run");
    let mut folder = RunFolder::open(&path, Existing::Resume, SHORT).unwrap();
    folder.claim_run_folder(&plan, |_| false).unwrap();
    std::mem::forget(folder); // killed
    assert!(path.join(CONFIG).is_file());
    let mut other = plan.clone();
    other.config.train.seed = 9;
    // A lock of a dead process is invalid; here the process is still alive.
    std::fs::remove_file(path.join(lock::NAME)).unwrap();
    storage::write_file(&path.join(lock::NAME), b"").unwrap();
    let mut folder = RunFolder::open(&path, Existing::Refuse, SHORT).unwrap();
    folder.check(&other).unwrap();
    folder.claim_run_folder(&other, |_| false).unwrap();
}
