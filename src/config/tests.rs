use super::*;

const SMALL: &str = r#"
[data]
gamma = ["gamma.h5"]

[features]
columns = [
  { name = "size", transform = "log10" },
  { name = "width", transform = "ln", offset = 0.02 },
  { name = "alpha", transform = "signed" },
]

[cuts]
size = { min = 100 }
width = { min = 0.02, max = "0.068*log10(size)" }
"#;

fn refusal(text: &str, overrides: &[&str]) -> String {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    let error = parse(text, &overrides).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn small_configuration_gets_reference_network() {
    let config = parse(SMALL, &[]).unwrap();
    assert_eq!(config.flow_spec(), FlowSpec::reference_study(3));
    assert_eq!(config.cuts["width"].max, Some(CutBound::Expression("0.068*log10(size)".into())));
}

#[test]
fn written_configuration_is_read_back_equal() {
    let config =
        parse(SMALL, &["train.shards=8".into(), "model.permutation={seeded=3}".into()]).unwrap();
    let again = parse(&config.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(config, again);
    assert_eq!(config.hash().unwrap(), again.hash().unwrap());
}

#[test]
fn unknown_key_names_nearest_and_line() {
    let message = refusal(&format!("{SMALL}\n[train]\nepoch = 3\n"), &[]);
    assert!(message.contains("did you mean 'epochs'?"), "{message}");
    assert!(message.contains("line 17"), "{message}");
    let message = refusal(SMALL, &["train.learning_rat=0.1"]);
    assert!(message.contains("did you mean 'learning_rate'?"), "{message}");
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    assert!(refusal(SMALL, &["train.batch=0"]).contains("train.batch"));
    assert!(refusal(SMALL, &["train.shards=3"]).contains("power of two"));
    assert!(refusal(SMALL, &["split.train=0.9"]).contains("sum of the fractions"));
    assert!(refusal(SMALL, &["model.blocks=0"]).contains("blocks"));
    assert!(refusal(SMALL, &["cuts.size.min=nan"]).contains("cuts.size.min"));
    assert!(refusal(SMALL, &["cuts.size={min=60,max=60}"]).contains("min below max"));
    assert!(refusal(SMALL, &["run.watchdog_seconds=-1"]).contains("watchdog"));
    assert!(refusal(SMALL, &["epochs"]).contains("section.key=value"));
    assert!(refusal(SMALL, &["train.learning_rate=nan"]).contains("learning_rate"));
}

#[test]
fn hash_ignores_run_section_only() {
    let hash = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        parse(SMALL, &set).unwrap().hash().unwrap()
    };
    assert_eq!(hash(&[]), hash(&["run.threads=3"]));
    assert_ne!(hash(&[]), hash(&["train.seed=3"]));
}

#[test]
fn wrong_values_are_described_with_key_and_line() {
    let cases = [
        ("[train]\nepochs = \"five\"", "`train.epochs` must be a whole number, found \"five\""),
        ("[train]\nepochs = -3", "`train.epochs` must be a whole number, found -3"),
        ("[train]\nepochs = 2.5", "`train.epochs` must be a whole number, found 2.5"),
        ("[train]\nema = \"high\"", "`train.ema` must be a number, found \"high\""),
        ("[model]\nhidden = 64", "`model.hidden` must be a list, found 64"),
        ("[model]\nhidden = [64, \"x\"]", "`model.hidden[1]` must be a whole number, found \"x\""),
        ("[run]\nshare_devices = 1", "`run.share_devices` must be true or false, found 1"),
        ("[run]\nengine = \"gpu\"", "`run.engine` must be"),
        ("[model]\nmode = \"ratios\"", "did you mean 'ratio'?"),
        ("[score]\npositions = \"six\"", "`score.positions` must be a whole number, or a list"),
        ("[train]\nepoch = 3", "unknown key `train.epoch`"),
        ("[[anomalies.generators]]\nkind = \"box\"\nspan = 2.0", "span"),
        ("[thresholds]\nedges = [1.0]", "the key `thresholds.per` is missing"),
        ("[train", "line 16: unclosed table"),
    ];
    for (lines, expected) in cases {
        let message = refusal(&format!("{SMALL}\n{lines}\n"), &[]);
        assert!(message.contains(expected), "{lines}: {message}");
        assert!(message.contains("line 1") || message.contains("line 2"), "{lines}: {message}");
    }
}

#[test]
fn wrong_overrides_are_described_without_a_line() {
    let message = refusal(SMALL, &["train.epochs=five"]);
    assert!(message.starts_with("`train.epochs` must be a whole number, found"), "{message}");
    let message = refusal("[data]\ngamma = []\n", &[]);
    assert!(message.contains("the key `features` is missing"), "{message}");
}
