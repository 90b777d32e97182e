//! Formats an evaluation as about twenty aligned lines for the terminal. Missing values are a dash;
//! warnings come last, where they are visible.

use super::confusion::PositiveClass;
use super::measured::{Measured, compared, probability, significant};
use super::roc::auc_text;
use super::thresholds::bins::range_text;
use super::{Auc, Class, ClassCounts, Evaluation, Selected, Separation};
use std::fmt::{self, Display, Formatter};

const NAME: usize = 36;
const FIGURE: usize = 19;
const AUC_ERROR: &str = " (test sampling; spread over training seeds not included)";

impl Display for Evaluation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let about = &self.about;
        writeln!(f, "{} · part {} · model {}", about.mode, about.part, short(&about.model))?;
        self.sample(f)?;
        line(f, "AUC", or_dash(self.auc.as_ref().map(auc_with_basis)))?;
        if let Some(other) = &self.baseline {
            let auc = or_dash(other.auc.as_ref().map(auc_text));
            let less = or_dash(other.difference.map(Measured::compared));
            line(f, &format!("  {}", other.name), format!("{auc}; that of the model is {less}"))?;
        }
        self.cuts(f)?;
        let (value, rule) =
            (significant(self.threshold.value, 5), self.threshold.rule.of_score(&about.score));
        let limit = self.threshold.limit_text().map_or(String::new(), |l| format!(", {l}"));
        line(f, "threshold", format!("{value}, {rule}{limit}"))?;
        separation(f, &self.at_threshold.after_cuts, "")?;
        if let Some(before) = &self.at_threshold.before_cuts {
            separation(f, before, " of all triggered")?;
        }
        for at in &self.at_survival {
            let name = format!("  gammas at hadrons {}", at.hadron_survival);
            let none = format!("- ({})", self.why_no_survival());
            line(f, &name, at.point.map_or(none, |p| p.gamma_efficiency.to_string()))?;
        }
        self.posterior(f)?;
        self.by_bins(f)?;
        self.classes(f)?;
        self.reliance(f)?;
        self.scanned(f)?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

impl Evaluation {
    fn sample(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (gamma, hadron) = (self.counts.gamma, self.counts.hadron);
        let share = or_dash(self.counts.gamma_fraction().map(|s| significant(100.0 * s, 3)));
        line(f, "events", format!("{gamma} gammas, {hadron} hadrons ({share} % gammas)"))?;
        if let (Some(weights), Some(of)) = (&self.about.weights, &self.effective) {
            let (gamma, hadron) = (significant(of.gamma, 5), significant(of.hadron, 5));
            let text = format!("{gamma} gammas, {hadron} hadrons, by {}", weights.expression);
            line(f, "  effective, weighted", text)?;
        }
        for (reason, rows) in &self.unusable {
            let classes = self.left_out.get(reason).map_or(String::new(), |of| {
                format!(" ({} gammas, {} hadrons)", of.gamma, of.hadron)
            });
            line(f, "  rows left out", format!("{rows}: {reason}{classes}"))?;
        }
        if let Some(nll) = &self.normal_nll {
            let mean = or_dash(nll.mean.map(|m| significant(m, 5)));
            let median = significant(nll.median, 5);
            line(f, "NLL of the normal class", format!("mean {mean}, median {median} nats"))?;
        }
        Ok(())
    }

    /// Writes where the posterior is a value and where it is a bound.
    fn posterior(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(range) = &self.calibrated else { return Ok(()) };
        let Some(([low, high], [from, to])) = range.posterior.zip(range.scores) else {
            return Ok(());
        };
        let [most, least] = range.posterior_limits.unwrap_or([low, high]);
        let [low, high, most, least] = [low, high, most, least].map(|p| probability(p, 2));
        let [from, to] = [from, to].map(|score| significant(score, 4));
        let counts = |of: ClassCounts| format!("{} gammas, {} hadrons", of.gamma, of.hadron);
        let name = format!("posterior at {}{}", range.prior, range.basis());
        line(f, &name, format!("resolved from {low} to {high}"))?;
        let below = format!("≤ {most}: {}", counts(range.below));
        line(f, &format!("  bound, score below {from}"), below)?;
        let above = format!("≥ {least}: {}", counts(range.above));
        line(f, &format!("  bound, score above {to}"), above)?;
        if range.posterior_limits.is_some() {
            line(f, "  confidence of each bound", "95 %")?;
        }
        Ok(())
    }

    /// Writes the standard cuts, and the model at the same hadron survival.
    fn cuts(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(cuts) = &self.baseline_cuts else { return Ok(()) };
        line(f, &cuts.name, &cuts.cuts)?;
        let mut of = |name: &str, s: &Selected| {
            let quality = figure(s.quality);
            let text = format!("{}, {}; {quality}", s.gamma_efficiency, s.hadron_survival);
            line(f, name, text)
        };
        of("  gammas, hadrons of triggered; Q", &cuts.selected)?;
        if let Some(model) = &cuts.model {
            of("  model at the same hadrons", &model.selected)?;
        }
        let difference = or_dash(cuts.difference.map(Measured::compared));
        line(f, "  Q of the model, paired", difference)
    }

    fn by_bins(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(at) = &self.at_bins else { return Ok(()) };
        line(f, &format!("thresholds per {}", at.per), "gammas, hadrons that pass; Q")?;
        let describe = |of: &Separation| {
            let [gamma, hadron] = [of.gamma_efficiency, of.hadron_survival].map(figure);
            format!("{gamma}, {hadron}; {}", figure(of.quality))
        };
        for (i, bin) in at.bins.iter().enumerate() {
            let note = if bin.global { " (threshold of all)" } else { "" };
            let value = significant(bin.threshold, 5);
            let name = format!("  {}", range_text(&at.edges, i));
            line(f, &name, format!("{} at {value}{note}", describe(&bin.after_cuts)))?;
        }
        line(f, "  all bins together", describe(&at.all.after_cuts))
    }

    /// Writes the loss of area with the values of a feature permuted, the largest first.
    fn reliance(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(auc) = self.auc.filter(|_| !self.importance.is_empty()) else { return Ok(()) };
        let note = "AUC with its values permuted between events; not the value of the feature";
        line(f, "reliance of this model on", note)?;
        let mut features: Vec<_> = self.importance.iter().collect();
        features.sort_by(|a, b| a.auc_without.value.total_cmp(&b.auc_without.value));
        for of in features {
            let changed = compared(of.auc_without.value - auc.value, |x| significant(x, 3));
            line(
                f,
                &format!("  {}", of.feature),
                format!("{}, {changed}", auc_text(&of.auc_without)),
            )?;
        }
        Ok(())
    }

    /// Writes one line per threshold of the scan.
    fn scanned(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(scan) = &self.scan else { return Ok(()) };
        let title = match &scan.observation {
            Some(o) => format!("scan for {o}"),
            None => "scan".to_owned(),
        };
        writeln!(f, "  {title}")?;
        write!(f, "  {:>13} {:>24} {:>24} {:>24}", "threshold", "gammas", "hadrons", "Q")?;
        if scan.observation.is_some() {
            write!(f, "{:>12}{:>12}{:>8}{:>10}", "N_on", "N_off", "σ", "5 σ at")?;
        }
        writeln!(f)?;
        for (i, point) in scan.points.iter().enumerate() {
            let (gamma, hadron) = (point.gamma_efficiency, point.hadron_survival);
            let threshold = significant(point.threshold, 5);
            write!(f, "  {threshold:>13} {gamma:>24} {hadron:>24} {:>24}", point.quality)?;
            if let Some(expected) = point.expected {
                let [on, off] = [expected.on, expected.off].map(|n| significant(n, 4));
                let (sigma, reach) = (significant(expected.significance, 3), expected.sensitivity);
                let reach = or_dash(reach.map(|r| significant(r, 3)));
                write!(f, "{on:>12}{off:>12}{sigma:>8}{reach:>10}")?;
            }
            let best = scan.best() == Some(i);
            let notes = [(point.own, "of the model"), (best, "largest σ")];
            let notes: Vec<&str> = notes.iter().filter(|(is, _)| *is).map(|(_, n)| *n).collect();
            writeln!(f, "{}{}", if notes.is_empty() { "" } else { "  " }, notes.join(", "))?;
        }
        Ok(())
    }

    fn classes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let c = &self.at_threshold.confusion;
        if self.at_bins.is_some() {
            let note = "the threshold of all events; `pass` of scores uses the bins";
            line(f, "class counts below use", note)?;
        }
        writeln!(f, "  {:NAME$}{:>10}{:>10}", "true class", "→ gamma", "→ hadron")?;
        writeln!(f, "  {:NAME$}{:>10}{:>10}", "gamma", c.gamma_as_gamma, c.gamma_as_hadron)?;
        writeln!(f, "  {:NAME$}{:>10}{:>10}", "hadron", c.hadron_as_gamma, c.hadron_as_hadron)?;
        let head = ["precision", "recall", "F1"];
        let title = "positive class, at this mixture";
        writeln!(f, "  {title:NAME$}{:FIGURE$}{:FIGURE$}{}", head[0], head[1], head[2])?;
        positive(f, &self.at_threshold.gamma_positive)?;
        positive(f, &self.at_threshold.hadron_positive)
    }
}

fn separation(f: &mut Formatter<'_>, s: &Separation, note: &str) -> fmt::Result {
    line(f, &format!("  gamma efficiency{note}"), figure(s.gamma_efficiency))?;
    line(f, &format!("  hadron survival{note}"), figure(s.hadron_survival))?;
    line(f, &format!("  Q{note}"), figure(s.quality))?;
    let name = format!("  purity at {}{note}", s.prior);
    line(f, &name, figure(s.purity))
}

fn positive(f: &mut Formatter<'_>, of: &PositiveClass) -> fmt::Result {
    let name = match of.positive {
        Class::Gamma => "gamma",
        Class::Hadron => "hadron",
    };
    let f1 = or_dash(of.f1.map(|x| significant(x, 3)));
    writeln!(f, "  {name:NAME$}{:FIGURE$}{:FIGURE$}{f1}", figure(of.precision), figure(of.recall))
}

/// Formats the area with its error, and the origin of the error.
fn auc_with_basis(auc: &Auc) -> String {
    let basis = if auc.error.is_some() { AUC_ERROR } else { "" };
    format!("{}{basis}", auc_text(auc))
}

fn line(f: &mut Formatter<'_>, name: &str, text: impl Display) -> fmt::Result {
    let space = if name.chars().count() < NAME { "" } else { " " };
    writeln!(f, "  {name:NAME$}{space}{text}")
}

fn figure(measured: Option<Measured>) -> String {
    or_dash(measured.map(|m| m.to_string()))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// Returns the first 12 characters of a hash.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use crate::statistics::evaluation::FileCounts;
    use crate::statistics::{About, ClassCounts, Evaluation, Rule, Sample};

    #[test]
    fn summary_is_aligned_with_dash_for_missing() {
        let sample = Sample::new(&[1.0, 2.0, 3.0], &[true; 3]).unwrap();
        let threshold = Rule::Fixed { value: 1.5 }.choose(&sample).unwrap();
        let before_cuts = Some(ClassCounts { gamma: 5, hadron: 0 });
        let about = About { mode: "one-class".to_owned(), before_cuts, ..About::default() };
        let text = Evaluation::new(about, &sample, threshold).unwrap().to_string();
        assert!(text.contains("\n  AUC                                 -\n"), "{text}");
        assert!(text.contains("\n    gamma efficiency                  0.67 ± 0.27\n"), "{text}");
        assert!(text.contains("warning: There are no hadrons"), "{text}");
        assert!(text.contains("- (there are no hadrons)\n"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn excluded_rows_are_listed_by_class() {
        let file = |gamma, hadron| FileCounts {
            unusable: [("outside the cuts".to_owned(), gamma + hadron)].into(),
            left_out: [("outside the cuts".to_owned(), ClassCounts { gamma, hadron })].into(),
            ..FileCounts::default()
        };
        let about = About { files: vec![file(3, 20), file(0, 5)], ..About::default() };
        let sample = Sample::new(&[1.0, 2.0], &[false; 2]).unwrap();
        let threshold = Rule::Fixed { value: 1.5 }.choose(&sample).unwrap();
        let text = Evaluation::new(about, &sample, threshold).unwrap().to_string();
        let line = "28: outside the cuts (3 gammas, 25 hadrons)";
        assert!(text.contains(line) && text.contains("- (there are no gammas)"), "{text}");
        assert!(!text.contains("fewer than"), "{text}");
    }
}
