//! Archive scoring: each position of each row has the score of a file with that position. The
//! bytes do not depend on the distribution of the work, and finished work is not repeated.

use crate::support::{
    Events, arguments, folder, has_extension, hash, json, ledger, program, ranks, run, seed,
    simulated, succeed, trained, tree,
};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use taiga_flow::config::Class;
use taiga_flow::hillas::{ImageAxis, disp, rotated, theta2};
use taiga_flow_gpu::random::Stream;

const INPUT: i32 = 3;
const USAGE: i32 = 2;
const PARTIAL: i32 = 4;

/// Bits of a row without a score.
const UNUSABLE: u32 = 3;

const ALL_COLUMNS: &str = r#"columns = ["score", "log_prob", "log_prob_raw", "dist", "alpha", "theta2", "chi2", "p_value", "pass"]"#;

/// Reads a column of a score file: (positions)(rows).
fn column<T: hdf5::H5Type + Copy>(path: &Path, name: &str) -> Vec<Vec<T>> {
    let file = hdf5::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let dataset = file.dataset(&format!("scores/{name}")).unwrap_or_else(|e| panic!("{name}: {e}"));
    if dataset.ndim() == 1 {
        return vec![dataset.read_raw().expect("values")];
    }
    let values = dataset.read_2d::<T>().expect("values");
    values.columns().into_iter().map(|column| column.iter().copied().collect()).collect()
}

fn score(model: &Path, output: &Path, inputs: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = Vec::from(arguments!["score", "-m", model, "-o", output, inputs]);
    all.extend(arguments!["--threads", "1"]);
    all.extend(more.iter().map(OsString::from));
    all
}

/// Returns the events as if the source were rotated by k of `count` steps.
fn turned(events: &Events, k: usize, count: usize) -> Events {
    let mut turned = events.clone();
    let of = |name: &str| events.clone().feature(name).clone();
    let [x, y, axis, sx, sy] = ["xc", "yc", "axis", "source_x", "source_y"].map(of);
    let axis = |row: usize| {
        let centroid = [f64::from(x[row]), f64::from(y[row])];
        let source = rotated([f64::from(sx[row]), f64::from(sy[row])], k, count);
        ImageAxis::from_degrees(centroid, f64::from(axis[row])).relative_to(source)
    };
    let rows = events.rows();
    *turned.feature("dist") = (0..rows).map(|row| axis(row).dist as f32).collect();
    *turned.feature("alpha") = (0..rows).map(|row| axis(row).alpha() as f32).collect();
    turned
}

#[test]
fn position_scores_equal_those_of_moved_source() {
    let (trained, folder) = (trained(), folder());
    let mut events = Events::read(&trained.hadron);
    // Rows that cannot be used, at some positions or at all.
    events.feature("width")[3] = f32::NAN;
    events.feature("axis")[4] = f32::NAN;
    events.feature("source_x")[5] = f32::NAN;
    events.feature("con2")[6] = 2.0;
    events.feature("xc")[7] = events.feature("source_x")[7];
    events.feature("yc")[7] = events.feature("source_y")[7];
    let archive = folder.path().join("archive");
    events.write(&archive.join("run.h5"));
    let config = folder.path().join("score.toml");
    std::fs::write(&config, format!("[score]\npositions = 6\n{ALL_COLUMNS}\n")).expect("a file");
    let output = folder.path().join("scores");
    let command = score(&trained.model, &output, &archive, &["-c", config.to_str().expect("text")]);
    let printed = succeed(&mut program(&command));
    assert!(printed.stdout.contains("outside a transform's domain"), "{}", printed.stdout);
    let at = output.join("run.h5");
    let columns: [Vec<Vec<f32>>; 5] =
        ["score", "log_prob_raw", "dist", "alpha", "theta2"].map(|name| column(&at, name));
    let status: Vec<Vec<u32>> = column(&at, "status");
    let size = events.feature("size").clone();
    let (width, length) = (events.feature("width").clone(), events.feature("length").clone());
    for k in 0..6 {
        let of_position = turned(&events, k, 6);
        let path = folder.path().join(format!("turned-{k}.h5"));
        of_position.write(&path);
        let plain = folder.path().join(format!("plain-{k}"));
        let set = r#"score.columns=["score", "log_prob_raw"]"#;
        succeed(&mut program(&score(&trained.model, &plain, &path, &["--set", set])));
        let plain = plain.join(format!("turned-{k}.h5"));
        let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(bits(&columns[0][k]) == bits(&column(&plain, "score")[0]), "position {k}");
        // Varying coordinates are added separately, so the sum of logarithms may round
        // differently.
        for (a, b) in columns[1][k].iter().zip(&column::<f32>(&plain, "log_prob_raw")[0]) {
            assert!((a - b).abs() < 1e-5 * (1.0 + b.abs()) || a.is_nan() && b.is_nan());
        }
        let mut plain_status = column::<u32>(&plain, "status");
        // The plain file has `dist`, so its row without a source is used. Other positions need the
        // source.
        plain_status[0][5] = 1;
        assert_eq!(status[k], plain_status[0], "position {k}");
        let (mut of_position, turned) = (of_position.clone(), of_position);
        assert_eq!(bits(&columns[2][k]), bits(of_position.feature("dist")));
        assert_eq!(bits(&columns[3][k]), bits(of_position.feature("alpha")));
        for row in (0..events.rows()).filter(|row| status[k][*row] & UNUSABLE == 0) {
            let value = |name: &str| f64::from(turned.clone().feature(name)[row]);
            if row % 997 != 0 {
                continue; // a copied column with one value per event
            }
            let centroid = [value("xc"), value("yc")];
            let source = rotated([value("source_x"), value("source_y")], k, 6);
            let axis = ImageAxis::from_degrees(centroid, value("axis")).relative_to(source);
            let [s, w, l] = [&size, &width, &length].map(|c| f64::from(c[row]));
            let expected = theta2(&axis, disp(s, w, l, axis.dist), None);
            let found = f64::from(columns[4][k][row]);
            assert!((found - expected).abs() < 1e-6 * (1.0 + expected), "row {row}");
        }
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(output.join("manifest.json")).expect("a manifest"))
            .expect("JSON");
    assert_eq!(manifest["positions"], serde_json::json!([0.0, 60.0, 120.0, 180.0, 240.0, 300.0]));
    assert_eq!(manifest["files"][0]["unusable"], 4);
}

#[test]
fn score_columns_agree_with_their_definitions() {
    let (trained, folder) = (trained(), folder());
    let events = Events::read(&trained.gamma);
    let archive = folder.path().join("archive");
    events.write(&archive.join("run.h5"));
    let table = folder.path().join("energy.toml");
    let text =
        "log10_size = [1.0, 7.0]\ndist = [0.0, 9.0]\nlog10_energy = [[0.0, 0.9], [6.0, 6.9]]\n";
    std::fs::write(&table, text).expect("a table");
    let config = folder.path().join("score.toml");
    let text = format!(
        r#"
[score]
positions = [0, 90]
{ALL_COLUMNS}
copy = ["size", "energy"]
energy_table = "{}"

[score.quality]
size = {{ min = 200 }}
width = {{ max = "0.5*length" }}

[[score.working_points]]
name = "loose"
threshold = -9.0

[[score.working_points]]
name = "rare"
threshold = 0.05
column = "p_value"
"#,
        table.display()
    );
    std::fs::write(&config, text).expect("a file");
    let output = folder.path().join("scores");
    let command = score(&trained.model, &output, &archive, &["-c", config.to_str().expect("text")]);
    succeed(&mut program(&command));
    let at = output.join("run.h5");
    let mut source = events.clone();
    let [size, width, length, dist] =
        ["size", "width", "length", "dist"].map(|name| source.feature(name).clone());
    let quality: Vec<u32> = column(&at, "quality").remove(0);
    let energy: Vec<f32> = column(&at, "energy").remove(0);
    assert_eq!(column::<f32>(&at, "size")[0], size);
    assert_eq!(column::<f32>(&at, "energy_true")[0], *source.feature("energy"));
    for row in 0..events.rows() {
        let half = f64::from(length[row]) * 0.5;
        let expected = u32::from(size[row] <= 200.0) + 2 * u32::from(f64::from(width[row]) >= half);
        assert_eq!(quality[row], expected, "row {row}");
        let log = f64::from(size[row]).log10() - 1.0 + 0.1 * f64::from(dist[row]);
        assert!((f64::from(energy[row]).log10() - log).abs() < 1e-5, "row {row}");
    }
    let [scores, p_values, chi2] =
        ["score", "p_value", "chi2"].map(|name| column::<f32>(&at, name));
    let (pass, status) = (column::<u8>(&at, "pass"), column::<u32>(&at, "status"));
    let mut seen = 0;
    for k in 0..2 {
        for row in 0..events.rows() {
            let inside = status[k][row] == 0;
            let loose = inside && f64::from(scores[k][row]) >= -9.0;
            let rare = inside && f64::from(p_values[k][row]) >= 0.05;
            assert_eq!(pass[k][row], u8::from(loose) + 2 * u8::from(rare), "{k} {row}");
            seen |= 1 << pass[k][row];
            let known = status[k][row] & UNUSABLE == 0;
            assert_eq!(chi2[k][row] >= 0.0, known);
            assert_eq!((0.0..=1.0).contains(&p_values[k][row]) && p_values[k][row] > 0.0, known);
        }
    }
    assert_eq!(seen & 0b1001, 0b1001, "nothing passed, or everything did");
    // Training events are as normal as held-out ones: the p-values are about uniform.
    let below = p_values[0].iter().filter(|p| **p < 0.2).count() as f64 / events.rows() as f64;
    assert!((below - 0.2).abs() < 0.03, "{below}");
    // |z|² of six standard normal numbers has mean 6.
    let mean = chi2[0].iter().filter(|c| c.is_finite()).map(|c| f64::from(*c)).sum::<f64>();
    let mean = mean / events.rows() as f64;
    assert!((4.0..8.0).contains(&mean), "{mean}");
    let file = hdf5::File::open(&at).expect("scores");
    let group = file.group("scores").expect("the group");
    let text = |name: &str| -> serde_json::Value {
        let text: hdf5::types::FixedUnicode<1024> =
            group.attr(name).and_then(|a| a.read_scalar()).expect("a text");
        serde_json::from_str(&text).expect("JSON")
    };
    assert_eq!(text("quality_bits"), serde_json::json!(["size", "width"]));
    assert_eq!(text("working_points")[1]["column"], "p_value");
    let angles: Vec<f64> = group.attr("positions").and_then(|a| a.read_raw()).expect("angles");
    assert_eq!(angles, [0.0, 90.0]);
    let offset: Vec<f64> = file.attr("source_offset").and_then(|a| a.read_raw()).expect("offsets");
    assert!(offset.iter().all(|o| (o - 1.2).abs() < 1e-5), "{offset:?}");
    let version: i64 = file.attr("version").and_then(|a| a.read_scalar()).expect("a version");
    assert_eq!(version, 3);
}

/// Writes an archive of very uneven files; the longest is longer than two blocks.
fn archive(folder: &Path) -> PathBuf {
    let archive = folder.join("archive");
    let stream = Stream::new(seed(), "uneven archive", &[]);
    for i in 0..9 {
        let rows = 1 + (10_f64.powf(3.7 * stream.uniform(i)) as u64);
        let name = format!("night-{}/run-{i}.h5", i % 3);
        simulated(archive.join(name), Class::Hadron, rows, seed() + i);
    }
    simulated(archive.join("one.h5"), Class::Gamma, 1, seed());
    simulated(archive.join("night-1/long.h5"), Class::Gamma, 200_000, seed() + 100);
    archive
}

#[test]
fn outputs_are_equal_on_any_ranks_and_pieces() {
    let (trained, folder) = (trained(), folder());
    let archive = archive(folder.path());
    let set = ["--set", "score.positions=3", "--set", "score.copy=[\"size\"]"];
    let whole = folder.path().join("whole");
    succeed(&mut program(&score(&trained.model, &whole, &archive, &set)));
    let expected = tree(&whole);
    assert_eq!(expected.keys().filter(|name| has_extension(name, "h5")).count(), 11);
    let lines: BTreeMap<String, usize> =
        expected.keys().filter(|n| has_extension(n, "h5")).map(|n| (n.clone(), 1)).collect();
    assert_eq!(ledger(&whole), lines);
    // Whole files on two ranks, and pieces of all files that have more than a chunk.
    for (count, split) in [(2, "1000000"), (2, "65536"), (3, "65536"), (5, "65536")] {
        let output = folder.path().join(format!("ranks-{count}-{split}"));
        let more = [&set[..], &["--split-rows", split]].concat();
        succeed(&mut ranks(count, &score(&trained.model, &output, &archive, &more)));
        assert_eq!(tree(&output), expected, "{count} ranks, pieces of {split}");
        assert_eq!(ledger(&output), lines, "{count} ranks, pieces of {split}");
    }
    for batch in ["1000", "65537", "300000"] {
        let output = folder.path().join(format!("batch-{batch}"));
        let more = [&set[..], &["--batch", batch]].concat();
        succeed(&mut program(&score(&trained.model, &output, &archive, &more)));
        assert_eq!(tree(&output), expected, "batches of {batch}");
    }
    let output = folder.path().join("shards");
    for shard in ["2/3", "3/3", "1/3"] {
        assert!(!output.join("manifest.json").exists(), "before {shard}");
        let more = [&set[..], &["--shard", shard]].concat();
        succeed(&mut program(&score(&trained.model, &output, &archive, &more)));
    }
    assert_eq!(tree(&output), expected, "three shards");
    assert_eq!(ledger(&output), lines, "three shards");
    succeed(&mut program(&arguments!["verify", &output]));
    // Running a finished shard again does nothing.
    let more = [&set[..], &["--shard", "2/3"]].concat();
    succeed(&mut program(&score(&trained.model, &output, &archive, &more)));
    assert_eq!((tree(&output), ledger(&output)), (expected, lines));
}

#[test]
fn grown_archive_scores_only_new_files() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..4 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 500, seed() + i);
    }
    let output = folder.path().join("scores");
    let command = score(&trained.model, &output, &archive, &[]);
    succeed(&mut program(&command));
    let before = tree(&output);
    simulated(archive.join("night-2/4.h5"), Class::Gamma, 700, seed() + 4);
    let outcome = succeed(&mut ranks(2, &command));
    assert_eq!(outcome.stderr.matches("finished already").count(), 4, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("scored 2700 rows in 5 file"), "{}", outcome.stdout);
    let after = tree(&output);
    for (name, content) in before.iter().filter(|(name, _)| has_extension(name, "h5")) {
        assert_eq!(after.get(name), Some(content));
    }
    assert!(ledger(&output).values().all(|lines| *lines == 1), "{:?}", ledger(&output));
    let other = folder.path().join("other.safetensors");
    let run = folder.path().join("run");
    let train = arguments!["train", "-q", "-c", &trained.configuration, "-o", &run, "--set"];
    let train = [&train[..], &arguments!["train.epochs=1"]].concat();
    succeed(&mut program(&train));
    std::fs::copy(run.join("model.safetensors"), &other).expect("a model");
    let outcome = crate::support::run(&mut program(&score(&other, &output, &archive, &[])));
    assert_eq!(outcome.code, Some(USAGE), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("of a different model"), "{}", outcome.stderr);
    assert_eq!(tree(&output), after);
}

#[test]
fn text_tables_equal_hdf5_and_are_resumed() {
    let (trained, folder) = (trained(), folder());
    let archive = archive(folder.path());
    let set = ["--set", "score.positions=2"];
    let (binary, tables) = (folder.path().join("binary"), folder.path().join("tables"));
    succeed(&mut program(&score(&trained.model, &binary, &archive, &set)));
    let more = [&set[..], &["--format", "csv", "--split-rows", "65536"]].concat();
    let command = score(&trained.model, &tables, &archive, &more);
    succeed(&mut ranks(2, &command));
    let text = std::fs::read_to_string(tables.join("night-1/long.csv")).expect("a table");
    let mut lines = text.lines();
    let header =
        "event_id,run_id,class,score[0],score[1],log_prob[0],log_prob[1],status[0],status[1]";
    assert_eq!(lines.next(), Some(header));
    let at = binary.join("night-1/long.h5");
    let (keys, scores) = (column::<i64>(&at, "event_id"), column::<f32>(&at, "score"));
    let status = column::<u32>(&at, "status");
    let mut rows = 0;
    for (row, line) in lines.enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells[0], keys[0][row].to_string());
        let value: f32 = cells[4].parse().expect("a number");
        assert!(value.to_bits() == scores[1][row].to_bits() || value.is_nan(), "row {row}");
        assert_eq!(cells[8], status[1][row].to_string());
        rows += 1;
    }
    assert_eq!(rows, 200_000);
    let before = tree(&tables);
    std::fs::remove_file(tables.join("one.csv")).expect("a table");
    let outcome = succeed(&mut program(&command));
    assert_eq!(outcome.stderr.matches("finished already").count(), 10, "{}", outcome.stderr);
    assert_eq!(tree(&tables), before);
    succeed(&mut program(&arguments!["verify", &tables]));
}

#[test]
fn sources_without_positions_are_reported() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    let events = Events::read(&trained.gamma).chosen(&(0..3000).collect::<Vec<_>>());
    events.write(&archive.join("good.h5"));
    let mut near = events.clone();
    near.feature("source_x").iter_mut().for_each(|x| *x *= 0.3);
    near.feature("source_y").iter_mut().for_each(|y| *y *= 0.3);
    turned(&near, 0, 1).write(&archive.join("near.h5"));
    let mut wrong = events.clone();
    wrong.feature("axis").iter_mut().for_each(|a| *a = -*a);
    wrong.write(&archive.join("wrong-axis.h5"));
    let mut without = events.clone();
    without.features.retain(|(name, _)| name != "source_x");
    without.write(&archive.join("without.h5"));
    crate::support::write_with_defect(
        &events,
        &archive.join("unit.h5"),
        "source_y",
        &crate::support::Defect::Unit("cm"),
    );
    let output = folder.path().join("scores");
    let command = score(&trained.model, &output, &archive, &["--set", "score.positions=6"]);
    for count in [1, 2] {
        let outcome = run(&mut if count == 1 { program(&command) } else { ranks(count, &command) });
        assert_eq!(outcome.code, Some(PARTIAL), "{}", outcome.stderr);
        for (file, why) in [
            ("near.h5", "an offset of at least 0.4 deg, found 0.360 deg"),
            ("wrong-axis.h5", "do not agree with centroid, axis and source"),
            ("without.h5", "source_x"),
            ("unit.h5", "expected deg, found cm"),
        ] {
            let line = outcome.stdout.lines().find(|line| line.contains(file));
            assert!(line.is_some_and(|line| line.contains(why)), "{file}: {}", outcome.stdout);
        }
        let names: Vec<String> = tree(&output).into_keys().collect();
        assert_eq!(names, ["good.h5", "manifest.json"]);
        std::fs::remove_dir_all(&output).expect("the outputs");
    }
    // At the source itself nothing is rotated.
    let command =
        score(&trained.model, &output, &archive.join("near.h5"), &["--set", "score.positions=1"]);
    succeed(&mut program(&command));
}

#[test]
fn verify_finds_changed_removed_and_added_files() {
    let (trained, folder) = (trained(), folder());
    let archive = folder.path().join("archive");
    for i in 0..5 {
        simulated(archive.join(format!("{i}.h5")), Class::Gamma, 300 + i, seed() + i);
    }
    let output = folder.path().join("scores");
    succeed(&mut program(&score(&trained.model, &output, &archive, &[])));
    let verify = arguments!["verify", &output].to_vec();
    assert_eq!(json(&verify)["rows"], 1510);
    succeed(&mut ranks(2, &verify));
    let refused = |expected: &str| {
        for count in [1, 2] {
            let outcome =
                run(&mut if count == 1 { program(&verify) } else { ranks(count, &verify) });
            assert_eq!(
                outcome.code,
                Some(INPUT),
                "{expected}: {}{}",
                outcome.stdout,
                outcome.stderr
            );
            assert!(outcome.stdout.contains(expected), "{expected}: {}", outcome.stdout);
        }
    };
    let path = output.join("3.h5");
    let whole = std::fs::read(&path).expect("scores");
    let stream = Stream::new(seed(), "flip", &[]);
    for i in 0..3 {
        let mut flipped = whole.clone();
        flipped[(stream.bits(i) % whole.len() as u64) as usize] ^= 1;
        std::fs::write(&path, flipped).expect("scores");
        refused("3.h5: blake3 is");
    }
    std::fs::remove_file(&path).expect("scores");
    refused("3.h5: cannot be read");
    std::fs::write(&path, &whole).expect("scores");
    std::fs::write(output.join("new.h5"), &whole).expect("scores");
    refused("new.h5: is not in the manifest");
    std::fs::remove_file(output.join("new.h5")).expect("scores");
    succeed(&mut program(&verify));
    let path = output.join("ledger/1-of-1.jsonl");
    let text = std::fs::read_to_string(&path).expect("the ledger");
    std::fs::write(&path, text.replacen("\"rows\":30", "\"rows\":31", 1)).expect("the ledger");
    refused("ledger/1-of-1.jsonl: 1 line(s) are not as they were written");
    std::fs::write(&path, text).expect("the ledger");
    std::fs::remove_file(output.join("manifest.json")).expect("the manifest");
    let outcome = run(&mut program(&verify));
    assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("not complete"), "{}", outcome.stderr);
    // Verify a run: its checkpoints and its model.
    let verify = arguments!["verify", &trained.run].to_vec();
    let report = json(&verify);
    assert_eq!(report["model_blake3"], hash(&trained.model));
    let copy = folder.path().join("run");
    crate::support::copy(&trained.run, &copy);
    let model = copy.join("model.safetensors");
    let mut bytes = std::fs::read(&model).expect("a model");
    let at = bytes.len() - 5;
    bytes[at] ^= 4;
    std::fs::write(&model, bytes).expect("a model");
    let outcome = run(&mut program(&arguments!["verify", &copy]));
    assert_eq!(outcome.code, Some(INPUT), "{}", outcome.stderr);
    assert!(outcome.stdout.contains("wrong: model.safetensors"), "{}", outcome.stdout);
}

/// Scores with one more setting, which must be refused before anything is written.
fn refuse_setting(set: &str, expected: &str) {
    let (trained, folder) = (trained(), folder());
    let output = folder.path().join("scores");
    let command = score(&trained.model, &output, &trained.gamma, &["--set", set]);
    let outcome = run(&mut program(&command));
    assert_eq!(outcome.code, Some(USAGE), "{set}: {}", outcome.stderr);
    assert!(outcome.stderr.contains(expected), "{set}: {}", outcome.stderr);
    assert!(!output.exists(), "{set}");
}

#[test]
fn conflicting_options_are_refused_before_work() {
    for (set, expected) in [
        ("score.columns=[\"theta2\"]", "score.positions"),
        ("score.columns=[\"gammaness\"]", "cannot compute gammaness"),
        ("score.positions=0", "1 to 32"),
        ("score.positions=[10, 20]", "the first of them 0"),
        ("score.columns=[\"score\", \"score\"]", "a duplicate column"),
        ("score.copy=[\"score\"]", "same name"),
        ("score.columms=[\"score\"]", "did you mean 'columns'?"),
        ("score.energy_table=\"nowhere.toml\"", "energy table"),
    ] {
        refuse_setting(set, expected);
    }
}

#[test]
fn points_and_cuts_without_meaning_are_refused() {
    let point = |name: &str, threshold: f64| format!("{{name=\"{name}\",threshold={threshold:?}}}");
    let twice = format!("score.working_points=[{},{}]", point("a", -5.0), point("a", -9.0));
    for (set, expected) in [
        (twice.as_str(), "different names"),
        ("score.quality.size={min=5,max=1}", "min below max"),
        ("score.quality.size={min=5,max=5}", "min below max"),
        ("score.quality.size={}", "min, max or both"),
    ] {
        refuse_setting(set, expected);
    }
}
