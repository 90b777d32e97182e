use super::*;
use crate::statistics::{About, Class, FileCounts, Rule, Sample};
use serde_json::json;

const HOSTILE: &str = r#"<script src="http://x">alert('1')</script>&"url(x)"#;

fn evaluation(scores: &[f64], gamma: &[bool], name: &str) -> Evaluation {
    let file = FileCounts {
        path: name.to_owned(),
        unusable: [(name.to_owned(), 3)].into(),
        ..FileCounts::default()
    };
    let about = About {
        model: name.to_owned(),
        mode: name.to_owned(),
        normal: Some(Class::Gamma),
        score: name.to_owned(),
        files: vec![file],
        ..About::default()
    };
    let sample = Sample::new(scores, gamma).unwrap();
    let threshold = Rule::Fixed { value: 0.5 }.choose(&sample).unwrap();
    Evaluation::new(about, &sample, threshold).unwrap().with_warning(name)
}

fn epoch(epoch: u64, validation_nll: Option<f64>) -> EpochMetrics {
    EpochMetrics {
        epoch,
        step: 12 * epoch,
        train_nll: 8.0 / epoch as f64,
        validation_nll,
        validation_nll_median: None,
        learning_rate: 1e-3,
        gradient_norm: 3.2,
        skipped_steps: 0,
        events: 7842,
        best: false,
        stage: None,
        validation_loss: None,
        flows: Vec::new(),
    }
}

fn render(run: Option<RunData>, evaluations: Vec<Evaluation>) -> String {
    let comparisons = Vec::new();
    page(&ReportInputs { title: HOSTILE.to_owned(), run, evaluations, comparisons }).unwrap()
}

fn run(metrics: Vec<EpochMetrics>) -> RunData {
    RunData {
        configuration: format!("[run]\n# {HOSTILE}"),
        provenance: json!({ HOSTILE: HOSTILE }),
        metrics,
        model: json!({"features": [{"name": HOSTILE, "unit": "deg"}]}),
    }
}

/// Checks that nothing is fetched, nothing runs, and no text of a file becomes markup.
fn assert_harmless(html: &str) {
    assert!(!html.contains("<script") && !html.contains("<link") && !html.contains("<img"));
    assert!(!html.contains("NaN") && !html.contains("undefined"));
    let tags: Vec<&str> = html.split('<').skip(1).filter_map(|t| t.split('>').next()).collect();
    let own = tags.join(" ") + include_str!("page.html");
    for reference in ["http:", "https:", "src=", "href=", "url(", "@import", "alert"] {
        assert!(!own.contains(reference), "{reference}");
    }
}

fn escaped(text: &str) -> String {
    let mut environment = Environment::new();
    environment.add_template("t.html", "{{ text }}").unwrap();
    let template = environment.get_template("t.html").unwrap();
    template.render(minijinja::context!(text => text)).unwrap()
}

#[test]
fn page_is_self_contained_and_escapes_text() {
    let one = evaluation(&[0.0, 1.0, 2.0, 0.3], &[false, true, true, true], HOSTILE);
    let metrics = (1..5).map(|e| epoch(e, Some(9.0 / e as f64))).collect();
    let html = render(Some(run(metrics)), vec![one.clone(), one]);
    assert_harmless(&html);
    assert!(html.matches(&escaped(HOSTILE)).count() > 10);
    assert_eq!(html.matches("<svg").count(), 7);
}

#[test]
fn page_without_run_or_evaluations_renders() {
    assert_harmless(&render(None, Vec::new()));
    let html = render(Some(RunData::default()), Vec::new());
    assert!(html.contains("No evaluation yet") && html.contains("No epoch"));
    assert_harmless(&render(None, vec![evaluation(&[1.0], &[true], "only gammas")]));
    assert_harmless(&render(None, vec![evaluation(&[], &[], "nothing")]));
}

#[test]
fn null_and_non_finite_losses_are_left_out() {
    let html = render(Some(run(vec![epoch(1, None)])), Vec::new());
    assert!(html.contains("<svg") && !html.contains("best epoch"));
    let mut broken = epoch(2, Some(f64::INFINITY));
    broken.train_nll = f64::NAN;
    let html = render(Some(run(vec![epoch(1, Some(8.0)), broken.clone()])), Vec::new());
    assert_harmless(&html);
    assert!(html.contains("best epoch"));
    assert!(!render(Some(run(vec![broken])), Vec::new()).contains("<svg"));
}
