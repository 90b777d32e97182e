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
