//! A model file can be read without this program: a script with only numpy and safetensors
//! computes the same log p from it and the raw columns.

use crate::support::{
    Events, Outcome, arguments, folder, program, run, seed, skip, succeed, trained,
};
use std::path::Path;
use std::process::Command;

/// Returns the interpreter with numpy, safetensors and h5py that `tests/run.sh` sets up.
fn python() -> Option<std::ffi::OsString> {
    let python = std::env::var_os("TAIGA_FLOW_PYTHON");
    if python.is_none() {
        skip("TAIGA_FLOW_PYTHON names no interpreter for tests/independent/read_model.py");
    }
    python
}

fn reading(python: &std::ffi::OsStr, model: &Path, events: &Path, scores: &Path) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/independent/read_model.py");
    run(Command::new(python).args([&script, model, events, scores]))
}

#[test]
fn numpy_gets_the_same_log_p() {
    let Some(python) = python() else { return };
    let (trained, folder) = (trained(), folder());
    let mut events = Events::read(&trained.hadron);
    let row = (seed() % 20_000) as usize;
    events.feature("length")[row] = f32::NAN;
    events.feature("size")[row + 1] = 0.0;
    let odd = folder.path().join("odd.h5");
    events.write(&odd);
    let output = folder.path().join("scores");
    let inputs = [&trained.gamma, &odd];
    let command = arguments!["score", "-m", &trained.model, "-o", &output, inputs[0], inputs[1]];
    succeed(&mut program(&command));
    for (input, name) in [(inputs[0], "gamma.h5"), (inputs[1], "odd.h5")] {
        let outcome = reading(&python, &trained.model, input, &output.join(name));
        println!("{}", outcome.stdout);
        assert_eq!(outcome.code, Some(0), "{}{}", outcome.stdout, outcome.stderr);
    }
    // The script must detect one value that is wrong by a thousandth in one row.
    let scores = output.join("gamma.h5");
    let file = hdf5::File::open_rw(&scores).expect("the scores");
    let dataset = file.dataset("scores/log_prob").expect("log p");
    let mut values: Vec<f32> = dataset.read_raw().expect("values");
    values[row] *= 1.001;
    dataset.write_raw(&values).expect("values");
    drop((dataset, file));
    let outcome = reading(&python, &trained.model, &trained.gamma, &scores);
    assert_eq!(outcome.code, Some(1), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("disagree: log p"), "{}", outcome.stdout);
}
