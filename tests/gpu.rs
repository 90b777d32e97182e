//! The engine on a GPU: here on Vulkan computed by the processor.

use crate::support::{
    arguments, configuration, folder, hash, program, ranks, run, seed, simulated, skip, succeed,
};
use std::path::Path;
use taiga_flow::config::Class;

const SMALL: &str = "[train]\nepochs = 3\nbatch = 2048\nlearning_rate = 1e-2\n";

/// Whether there is a Vulkan device to test on.
fn has_vulkan() -> bool {
    let found = taiga_flow_gpu::device::devices(taiga_flow_gpu::device::Backend::Vulkan);
    if let Err(error) = &found {
        skip(&format!("GPU engine: {error}"));
    }
    found.is_ok()
}

/// Held-out NLL of the last epoch.
fn validation_nll(run: &Path) -> f64 {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let last: serde_json::Value =
        serde_json::from_str(metrics.lines().last().expect("a line")).expect("JSON");
    last["validation_nll"].as_f64().expect("a number")
}

#[test]
fn a_training_on_vulkan_has_the_same_bytes_on_any_number_of_ranks_and_ends_where_the_cpu_does() {
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
fn a_gpu_that_is_not_there_is_told_with_a_way_out() {
    let folder = folder();
    let gamma = simulated(folder.path().join("gamma.h5"), Class::Gamma, 2000, seed());
    let configuration = configuration(folder.path(), &gamma, SMALL);
    if taiga_flow_gpu::device::devices(taiga_flow_gpu::device::Backend::Cuda).is_ok() {
        return skip("there is a CUDA device");
    }
    let output = folder.path().join("run");
    let told = run(&mut program(&arguments![
        "train",
        "-c",
        &configuration,
        "-o",
        &output,
        "--engine",
        "cuda"
    ]));
    assert_eq!(told.code, Some(5), "{}", told.stderr);
    assert!(told.stderr.contains("no CUDA device"), "{}", told.stderr);
    assert!(told.stderr.contains("--engine cpu"), "{}", told.stderr);
    // By itself it takes the processor, and says why.
    let told = succeed(&mut program(&arguments!["train", "-c", &configuration, "-o", &output]));
    assert!(told.stderr.contains("computing on the processor: no CUDA device"), "{}", told.stderr);
}
