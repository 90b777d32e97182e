//! The GPU engine, tested on a Vulkan device that is emulated by the processor.

use crate::support::{
    arguments, configuration, folder, hash, program, ranks, run, seed, simulated, skip, succeed,
};
use std::path::Path;
use taiga_flow::config::Class;

const SMALL: &str = "[train]\nepochs = 3\nbatch = 2048\nlearning_rate = 1e-2\n";

/// Returns whether a Vulkan device is available.
fn has_vulkan() -> bool {
    let found = taiga_flow_gpu::device::devices(taiga_flow_gpu::device::Backend::Vulkan);
    if let Err(error) = &found {
        skip(&format!("GPU engine: {error}"));
    }
    found.is_ok()
}

/// Returns the held-out NLL of the last epoch.
fn validation_nll(run: &Path) -> f64 {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let last: serde_json::Value =
        serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    last["validation_nll"].as_f64().expect("a number")
}

#[test]
fn vulkan_training_is_equal_on_any_ranks_and_cpu() {
    if !has_vulkan() {
        return;
    }
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 8000, seed());
    let configuration = configuration(folder.path(), &gamma, SMALL);
    let output = |name: &str| folder.path().join(name);
    let train = |name: &str, engine: &str| {
        arguments!["train", "-q", "-c", &configuration, "-o", output(name), "--engine", engine]
    };
    succeed(&mut program(&train("cpu", "cpu")));
    succeed(&mut program(&train("vulkan", "vulkan")));
    let (cpu, vulkan) = (validation_nll(&output("cpu")), validation_nll(&output("vulkan")));
    assert!((cpu - vulkan).abs() < 1e-3, "{cpu} and {vulkan}");
    let model = |name: &str| hash(&output(name).join("model.safetensors"));
    for count in [2, 3] {
        let name = format!("ranks-{count}");
        succeed(&mut ranks(count, &train(&name, "vulkan")));
        assert_eq!(model(&name), model("vulkan"), "{count} ranks");
    }

    let score = |name: &str, engine: &str| {
        let model = output("vulkan").join("model.safetensors");
        succeed(&mut program(&arguments![
            "score",
            "-q",
            "-m",
            model,
            "-o",
            output(name),
            "--engine",
            engine,
            &gamma
        ]));
        let file = hdf5::File::open(output(name).join("gamma.h5")).expect("scores");
        file.dataset("scores/score").expect("a column").read_raw::<f32>().expect("scores")
    };
    for (a, b) in score("scores-cpu", "cpu").into_iter().zip(score("scores-vulkan", "vulkan")) {
        assert!((a - b).abs() <= 1e-5 * a.abs().max(1.0), "{a} and {b}");
    }
}

#[test]
fn vulkan_fine_tuned_ratio_agrees_with_cpu() {
    if !has_vulkan() {
        return;
    }
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 4000, seed());
    let hadron = simulated(folder.path().join("hadron.h5"), Class::Hadron, 4000, seed() ^ 1);
    let more = "epochs = 2\nbatch = 1024\n[fine_tune]\nepochs = 1\n";
    let configuration = configuration(folder.path(), &gamma, &format!("[train]\n{more}"));
    let output = |name: &str| folder.path().join(name);
    for engine in ["cpu", "vulkan"] {
        let hadrons = format!("data.hadron=[{:?}]", hadron.display().to_string());
        succeed(&mut program(&arguments![
            "train",
            "-q",
            "-c",
            &configuration,
            "-o",
            output(engine),
            "--engine",
            engine,
            "--set",
            "model.mode=ratio",
            "--set",
            hadrons
        ]));
    }
    let (cpu, vulkan) = (validation_nll(&output("cpu")), validation_nll(&output("vulkan")));
    assert!((cpu - vulkan).abs() < 1e-3, "{cpu} and {vulkan}");
}

/// Creates a folder with `tests/lost_device.c` as Vulkan loader, and returns it with the real
/// loader.
fn lossy_vulkan(folder: &Path) -> Option<std::path::PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"];
    let real = folders.into_iter().map(|f| Path::new(f).join("libvulkan.so.1"));
    let real = real.into_iter().find(|path| path.exists())?;
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lost_device.c");
    let made = std::process::Command::new("cc")
        .args(["-std=gnu11", "-Wall", "-Werror", "-O1", "-shared", "-fPIC"])
        // It must stay loaded after it is closed, and be found by its name before the real loader.
        .args(["-Wl,-z,nodelete", "-Wl,-soname,libvulkan.so.1", "-o"])
        .args([folder.join("libvulkan.so.1").as_os_str(), source.as_os_str()])
        .arg("-ldl")
        .status();
    assert!(made.expect("a compiler").success(), "lost_device.c does not compile");
    Some(real)
}

#[test]
fn lost_device_run_resumes_to_same_bytes() {
    if !has_vulkan() {
        return;
    }
    let folder = folder();
    let Some(real) = lossy_vulkan(folder.path()) else {
        return skip("no Vulkan loader that could be replaced");
    };
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 8000, seed());
    let configuration =
        configuration(folder.path(), &gamma, &format!("{SMALL}[run]\ncheckpoint_seconds = 0\n"));
    let output = |name: &str| folder.path().join(name);
    let train = |name: &str| {
        arguments!["train", "-c", &configuration, "-o", output(name), "--engine", "vulkan"]
    };
    succeed(&mut program(&train("expected_bytes")));
    let mut stopped = 0;
    // A step is one or many submissions: lose the device early and late.
    for (i, submissions) in [3, 12, 40, 90, 200].into_iter().enumerate() {
        let name = format!("lost-{i}");
        let mut command = program(&train(&name));
        command
            .env("LD_LIBRARY_PATH", folder.path())
            .env("TAIGA_FLOW_TEST_VULKAN", &real)
            .env("TAIGA_FLOW_TEST_SUBMISSIONS", submissions.to_string());
        let printed = run(&mut command);
        if printed.code != Some(0) {
            assert_eq!(printed.code, Some(5), "{submissions}: {}", printed.stderr);
            assert!(printed.stderr.contains("device"), "{submissions}: {}", printed.stderr);
            assert!(!printed.stderr.contains("panicked"), "{submissions}: {}", printed.stderr);
            stopped += 1;
            succeed(&mut program(&train(&name)));
        }
        let model = |name: &str| hash(&output(name).join("model.safetensors"));
        assert_eq!(model(&name), model("expected_bytes"), "{submissions}");
    }
    assert!(stopped >= 3, "the device was lost {stopped} time(s) only");
}

#[test]
fn missing_gpu_is_reported_with_advice() {
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 2000, seed());
    let configuration = configuration(folder.path(), &gamma, SMALL);
    if taiga_flow_gpu::device::devices(taiga_flow_gpu::device::Backend::Cuda).is_ok() {
        return skip("there is a CUDA device");
    }
    let output = folder.path().join("run");
    let printed = run(&mut program(&arguments![
        "train",
        "-c",
        &configuration,
        "-o",
        &output,
        "--engine",
        "cuda"
    ]));
    assert_eq!(printed.code, Some(5), "{}", printed.stderr);
    assert!(printed.stderr.contains("no CUDA device"), "{}", printed.stderr);
    assert!(printed.stderr.contains("--engine cpu"), "{}", printed.stderr);
    // By default the processor is used, with a message that gives the reason.
    let printed = succeed(&mut program(&arguments!["train", "-c", &configuration, "-o", &output]));
    assert!(printed.stderr.contains("computing on the CPU: no CUDA device"), "{}", printed.stderr);
}
