use super::built_in::NEEDED;
use super::*;

fn refusal(text: &str) -> String {
    let error = Schema::parse(text, "own.toml").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn class_column_keeps_its_text_for_hashes() {
    let class = ClassColumn { column: "kind".into(), gamma: vec![1], hadron: vec![0, 2] };
    let text = r#"Class { column: "kind", gamma: [1], hadron: [0, 2] }"#;
    assert_eq!(format!("{class:?}"), text);
}

#[test]
fn built_in_schemas_parse_with_six_features() {
    let fact = Schema::by_name_or_path("fact").unwrap();
    for name in NEEDED {
        assert_eq!(fact.quantities[name].canonical, canonical_unit(name).unwrap());
    }
    assert!((fact.quantities["alpha"].scale - 57.295_779_513_082_32).abs() < 1e-12);
    assert_eq!(fact.quantities["dist"].source.columns().len(), 4);
    let own = Schema::by_name_or_path("taiga-events").unwrap();
    assert!(own.open);
    assert_eq!(own.format, Some((EVENT_FORMAT.to_string(), EVENT_VERSION)));
    assert_eq!(own.shower, [vec!["run_id", "event_id"], vec!["row_hash"]]);
}

#[test]
fn misspelt_key_names_nearest_key_and_line() {
    let text = "name = \"x\"\ngroup = \"e\"\n[quantities.size]\ncolunm = \"s\"\nunit = \"p.e.\"\n";
    let text = refusal(text);
    assert!(text.contains("line 4") && text.contains("did you mean 'column'?"), "{text}");
    let text = refusal("nmae = \"x\"\ngroup = \"e\"\n");
    assert!(text.contains("did you mean 'name'?") && text.contains("own.toml"), "{text}");
}

#[test]
fn wrong_type_names_key_type_and_value() {
    let head = "name = \"x\"\ngroup = \"e\"\nopen = true\n";
    for (entry, part) in [
        ("version = \"one\"", "`version` must be a whole number, found \"one\""),
        ("layout = \"rows\"", "`layout` must be \"columns\", \"compound\""),
        ("[plausible]\nwidth = { range = 3 }", "`plausible.width.range` must be"),
        ("[quantities.size]\ncolumn = 5\nunit = \"deg\"", "must be a text in quotes, found 5"),
    ] {
        let text = refusal(&format!("{head}{entry}\n"));
        assert!(text.contains(part), "{entry}: {text}");
        assert!(!text.contains("invalid type"), "{text}");
    }
}

#[test]
fn invalid_quantity_is_refused_with_its_reason() {
    let schema = |entry: &str| {
        let head = "name = \"x\"\ngroup = \"e\"\n[constants]\nscale = 0.1\n";
        refusal(&format!("{head}[quantities.width]\n{entry}"))
    };
    for (entry, part) in [
        ("unit = \"deg\"", "either `column` or `expression`"),
        ("column = \"a\"\nexpression = \"b\"\nunit = \"deg\"", "either `column` or `expression`"),
        ("column = \"a\"\nunit = \"mm\"", "from 'mm' to 'deg'"),
        ("column = \"a\"\nunit = \"mm\"\nfactor = \"scael\"", "did you mean 'scale'?"),
        ("column = \"a\"\nunit = \"mm\"\nfactor = 0", "invalid factor"),
        ("column = \"a\"\nunit = \"mm\"\nfactor = 2\ncanonical = \"mm\"", "expected deg"),
        (
            "column = \"a\"\nunit = \"mm\"\nfactor = [1]",
            "`quantities.width.factor` must be a number or the name of a constant, found [1]",
        ),
        ("expression = \"a +\"\nunit = \"deg\"", "found the end"),
        ("expression = \"2*scale\"\nunit = \"deg\"", "does not use any column"),
    ] {
        let text = schema(entry);
        assert!(text.contains(part), "{entry}: {text}");
    }
    assert!(refusal("name = \"x\"\ngroup = \"e\"\n").contains("without quantities"));
}

#[test]
fn schema_by_name_or_path_and_misspelt_name() {
    let text = Schema::by_name_or_path("fatc").unwrap_err().to_string();
    assert!(text.contains("did you mean 'fact'?"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("own.toml");
    std::fs::write(&path, BUILT_IN[1].1).unwrap();
    assert_eq!(Schema::by_name_or_path(path.to_str().unwrap()).unwrap().name, "fact");
    assert_eq!(Schema::by_name_or_path("no/such.toml").unwrap_err().exit_code(), 2);
}

#[test]
fn units_have_one_spelling() {
    assert_eq!(normal_unit(" Degrees"), "deg");
    assert_eq!(normal_unit("phe"), "p.e.");
    assert_eq!(normal_unit("TeV"), "TeV");
}

#[test]
fn class_values_follow_the_lists_of_the_schema() {
    let plain = ClassColumn { column: "class".into(), gamma: vec![], hadron: vec![] };
    assert_eq!([1, 0, -1, 2].map(|v| plain.meaning(v)), [Some(1), Some(0), Some(-1), None]);
    let corsika = ClassColumn { column: "id".into(), gamma: vec![1], hadron: vec![14, 402] };
    assert_eq!([1, 402, 3].map(|v| corsika.meaning(v)), [Some(1), Some(0), Some(-1)]);
}
