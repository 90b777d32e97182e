use super::*;
use crate::storage::faults::{KINDS, memory_folder, with_fault};
use taiga_flow_gpu::random::Stream;

const IDENTITY: CheckpointIdentity =
    CheckpointIdentity { run_hash: "abc", engine: "cpu", shards: 2 };

fn state(step: u64) -> TrainState {
    let mut state = TrainState::new(vec![step as f32; 5], 1, 2);
    state.progress.step = step;
    state
}

#[test]
fn newest_is_loaded_and_last_ones_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for step in [3, 9, 10, 21] {
        save(folder.path(), &state(step), IDENTITY, 3).unwrap();
    }
    assert_eq!(list(folder.path()).unwrap(), [9, 10, 21]);
    assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(21));
}

#[test]
fn damaged_checkpoint_is_skipped_never_loaded() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &state(1), IDENTITY, 3).unwrap();
    save(folder.path(), &state(2), IDENTITY, 3).unwrap();
    for name in [WEIGHTS, PROGRESS, MANIFEST] {
        let path = folder.path().join("step-2").join(name);
        let whole = std::fs::read(&path).unwrap();
        for cut in [0, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(1));
        }
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        let found = newest(folder.path(), IDENTITY, 5, false);
        assert_eq!(found.unwrap().unwrap(), state(1), "{name}");
        std::fs::write(&path, &whole).unwrap();
    }
}

/// A flipped byte in the hash of the run is damage, not a checkpoint of a different run.
#[test]
fn manifest_with_changed_run_hash_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &state(1), IDENTITY, 3).unwrap();
    save(folder.path(), &state(2), IDENTITY, 3).unwrap();
    let path = folder.path().join("step-2").join(MANIFEST);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"abc\"", "\"abd\"")).unwrap();
    assert_eq!(newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap(), state(1));
}

#[test]
fn different_configuration_or_engine_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    save(folder.path(), &state(1), IDENTITY, 3).unwrap();
    let other = CheckpointIdentity { run_hash: "abd", ..IDENTITY };
    assert_eq!(newest(folder.path(), other, 5, false).unwrap_err().exit_code(), 2);
    let other = CheckpointIdentity { engine: "cuda", ..IDENTITY };
    assert_eq!(newest(folder.path(), other, 5, false).unwrap_err().exit_code(), 2);
    assert!(newest(folder.path(), other, 5, true).unwrap().is_some());
}

#[test]
fn missing_checkpoint_is_not_an_error() {
    let folder = tempfile::tempdir().unwrap();
    assert!(newest(&folder.path().join("none"), IDENTITY, 5, false).unwrap().is_none());
}

#[test]
fn failed_write_leaves_old_or_new_checkpoint() {
    for kind in KINDS {
        for n in 0.. {
            let folder = memory_folder();
            // The third one removes the oldest.
            save(folder.path(), &state(1), IDENTITY, 2).unwrap();
            save(folder.path(), &state(2), IDENTITY, 2).unwrap();
            let action = || save(folder.path(), &state(3), IDENTITY, 2);
            let (outcome, struck) = with_fault(n, kind, action);
            assert!(struck || outcome.is_ok(), "{kind:?} {n}: {outcome:?}");
            let found = newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap();
            let step = found.progress.step;
            assert_eq!(found, state(step), "{kind:?} {n}");
            assert!(step == 3 || (step == 2 && outcome.is_err()), "{kind:?} {n}: {step}");
            // The same step again, as written by a resumed run.
            save(folder.path(), &state(3), IDENTITY, 2).unwrap();
            let found = newest(folder.path(), IDENTITY, 5, false).unwrap().unwrap();
            assert_eq!(found, state(3));
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "{kind:?} {n}");
            if !struck {
                assert!(n > 10, "only {n} operations");
                break;
            }
        }
    }
}

/// Damages every file of the newest checkpoint in every way; the older one is found.
#[test]
fn truncated_or_flipped_checkpoint_never_loads() {
    let folder = memory_folder();
    let big = |step| {
        let mut state = TrainState::new((0..1500).map(|i| i as f32 + 0.5).collect(), 1, 2);
        state.progress.step = step;
        state
    };
    save(folder.path(), &big(1), IDENTITY, 3).unwrap();
    save(folder.path(), &big(2), IDENTITY, 3).unwrap();
    let older = |what: &str| {
        let found = newest(folder.path(), IDENTITY, 1500, false).unwrap().unwrap();
        assert_eq!(found, big(1), "{what}");
    };
    let stream = Stream::new(crate::test_seed(), "flips", &[]);
    for name in [WEIGHTS, PROGRESS, MANIFEST] {
        let path = folder.path().join("step-2").join(name);
        let whole = std::fs::read(&path).unwrap();
        for cut in (0..whole.len()).step_by(512).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..cut]).unwrap();
            older(&format!("{name} cut at {cut}"));
        }
        for flip in 0..1000 {
            let at = (stream.bits(2 * flip) % whole.len() as u64) as usize;
            let by = (stream.bits(2 * flip + 1) % 255 + 1) as u8;
            let mut flipped = whole.clone();
            flipped[at] ^= by;
            std::fs::write(&path, &flipped).unwrap();
            older(&format!("{name}, byte {at} by {by}"));
        }
        std::fs::write(&path, [&whole[..], b" "].concat()).unwrap();
        older(&format!("{name} with a byte more"));
        std::fs::remove_file(&path).unwrap();
        older(&format!("no {name}"));
        std::fs::write(&path, &whole).unwrap();
    }
    assert_eq!(newest(folder.path(), IDENTITY, 1500, false).unwrap().unwrap(), big(2));
}
