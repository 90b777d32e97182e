//! Scorings with different settings: `season` refuses to merge them, `compare` names the
//! differences.

use crate::support::{
    Events, Outcome, arguments, folder, json, program, ranks, run, seed, simulated, succeed,
    trained,
};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;

const EVENTS: u64 = 700;
const TABLE: &str = "log10_size = [1.0, 6.0]\ndist = [0.0, 9.0]\n\
                     log10_energy = [[-0.8, 2.35], [3.7, 6.85]]\n";

struct Nights {
    folder: tempfile::TempDir,
}

impl Nights {
    /// Writes two nights of hadrons, a file of gammas, and a configuration.
    fn new() -> Nights {
        let nights = Nights { folder: folder() };
        for (number, name) in ["n0.h5", "n1.h5"].into_iter().enumerate() {
            let toy = nights.at(&format!("toy-{name}"));
            simulated(toy.clone(), Class::Hadron, EVENTS, seed() + 50 + number as u64);
            let mut events = Events::read(&toy);
            events.class.fill(-1);
            for (key, values) in &mut events.keys {
                if key == "run_id" {
                    values.fill(700 + number as i64);
                }
            }
            events.write(&nights.at(name));
        }
        simulated(nights.at("mc.h5"), Class::Gamma, EVENTS, seed() + 60);
        std::fs::write(nights.at("table.toml"), TABLE).expect("a table");
        std::fs::write(nights.at("other.toml"), TABLE.replace("-0.8", "-0.1")).expect("a table");
        let text = format!(
            "[score]\npositions = 6\n\
             columns = [\"score\", \"log_prob\", \"alpha\", \"theta2\", \"pass\"]\n\
             energy_table = {:?}\n\
             [score.quality]\nwidth = {{ min = 0.05 }}\n",
            nights.at("table.toml").display().to_string()
        );
        std::fs::write(nights.at("score.toml"), text).expect("a configuration");
        nights
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn scored(&self, input: &str, output: &str, set: &[&str]) -> PathBuf {
        let (model, config, output) = (&trained().model, self.at("score.toml"), self.at(output));
        let mut score = program(&arguments![
            "score",
            "-q",
            "-m",
            model,
            "-c",
            &config,
            "-o",
            &output,
            self.at(input)
        ]);
        set.iter().for_each(|set| {
            score.args(["--set", set]);
        });
        succeed(&mut score);
        output
    }

    fn season(&self, folders: &[&Path], more: &[OsString], output: &str) -> Vec<OsString> {
        let mut all = Vec::from(arguments!["season", "-q", "-o", self.at(output)]);
        all.extend(folders.iter().map(OsString::from));
        all.extend_from_slice(more);
        all
    }
}

fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(3), "{}{}", outcome.stdout, outcome.stderr);
    for part in parts {
        assert!(outcome.stderr.contains(part), "no '{part}' in {}", outcome.stderr);
    }
}

#[test]
fn scorings_of_different_settings_not_merged() {
    let nights = Nights::new();
    let first = nights.scored("n0.h5", "first", &[]);
    let alike = nights.scored("n1.h5", "alike", &[]);
    let mc = nights.scored("mc.h5", "mc", &[]);
    let table = format!("score.energy_table={:?}", nights.at("other.toml").display().to_string());
    let others = [
        ("quality.width", "score.quality.width={min=0.15}", ["{min: 0.05}", "{min: 0.15}"]),
        ("disp", "score.disp=\"head\"", ["expected near", "found head"]),
        ("energy_table", table.as_str(), ["energy_table: expected", "found"]),
    ];
    for (number, (key, set, values)) in others.into_iter().enumerate() {
        let other = nights.scored("n1.h5", &format!("other-{number}"), &[set]);
        let says = [key, values[0], values[1], "n1.h5", "score all files with one configuration"];
        let merged = nights.season(&[&first, &other], &[], "merged");
        refused(&run(&mut program(&merged)), &says);
        if number == 0 {
            refused(&run(&mut ranks(2, &merged)), &says);
        }
        let gammas = nights.scored("mc.h5", &format!("mc-{number}"), &[set]);
        let more = arguments!["--gamma-mc", &gammas];
        let simulated = nights.season(&[&first], &more, "simulated");
        let says = [key, values[0], values[1], "mc.h5", "score all files with one configuration"];
        refused(&run(&mut program(&simulated)), &says);
        assert!(!nights.at("merged").exists() && !nights.at("simulated").exists());

        let output = nights.at(&format!("compared-{number}"));
        let compare = arguments!["compare", &alike, &other, "-o", &output];
        let text = succeed(&mut program(&compare)).stdout;
        assert!(text.contains("different settings") && text.contains(key), "{text}");
        let written = std::fs::read_to_string(output.join("comparison.json")).expect("written");
        let written: serde_json::Value = serde_json::from_str(&written).expect("JSON");
        assert_eq!(written["settings"].as_array().map(Vec::len), Some(1), "{written}");
        assert_eq!(written["settings"][0]["key"], key);
    }
    // The bounds of a quality cut that the season ignores do not matter.
    std::fs::write(nights.at("ignore.toml"), "[quality]\nignore = [\"width\"]\n").expect("written");
    let other = nights.at("other-0");
    let ignored = arguments!["-c", nights.at("ignore.toml")];
    succeed(&mut program(&nights.season(&[&first, &other], &ignored, "ignored")));
    let more = arguments!["--gamma-mc", &mc];
    succeed(&mut program(&nights.season(&[&first, &alike], &more, "good")));
    let same = json(&arguments!["compare", &alike, &alike]);
    assert!(same["settings"].is_null(), "{same}");
}
