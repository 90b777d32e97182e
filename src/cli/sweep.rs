//! `sweep`: one training per point of a grid of settings, and one table of all points.
//!
//! Points are numbered from 0, and the last grid changes fastest; point I has the run folder
//! `point-I`. The command trains all points one after the other, over all ranks; with `--point I`
//! it trains only this one, as an element of a job array. Finished points are kept. With
//! `--leave-one-out` the points are sets of features, and every model is evaluated.

use super::device::DeviceArguments;
use super::left_out::{self, Planned, Worth};
use super::sweep_points::{self, Expected, SweepPoint, relative};
use super::train::{command_line, trained};
use crate::comm::{Communicator, StopFlag, is_root, mark_shared, sync_result, value_of_root};
use crate::config::{self, Run};
use crate::data::files::list::list_files;
use crate::data::files::output_kind::OutputKind;
use crate::error::{Error, Fault, Result};
use crate::evaluate::{self, EVALUATION, EvaluatedParts};
use crate::model::Model;
use crate::statistics::Evaluation;
use crate::storage;
use crate::train::{self, Existing, MODEL};
use clap::Args;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(super) const TABLE: &str = "sweep.tsv";
const TABLE_START: &str = "point\t";
/// Folder of the evaluation of a point, below its run folder.
const EVALUATION_FOLDER: &str = "evaluation";
/// A larger grid is a typing error.
const MAX_POINTS: usize = 10_000;

#[derive(Debug, Args)]
pub struct Arguments {
    /// Configuration (TOML)
    #[arg(short, long)]
    config: PathBuf,
    /// Folder of the runs and of the table
    #[arg(short, long)]
    pub(super) output: PathBuf,
    /// Values of a key: train.learning_rate=1e-3,3e-3 (repeat for a grid)
    #[arg(long, required_unless_present = "leave_one_out", value_name = "KEY=A,B,…")]
    grid: Vec<String>,
    /// Train with all features and with each one left out, and evaluate every model: the loss of
    /// AUC without a feature is its value in addition to the others
    #[arg(long, conflicts_with = "grid")]
    leave_one_out: bool,
    /// Trainings of each set of features: train.seed is that of the configuration and the following
    /// ones
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    seeds: u64,
    /// Files with a class column for the evaluation [default: the test part of the files of the
    /// configuration]
    #[arg(long, num_args = 1.., value_name = "FILE", requires = "leave_one_out")]
    evaluate: Vec<PathBuf>,
    /// Override a key of the configuration in all points: train.epochs=5
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Train this point only, for arrays of jobs
    #[arg(long, value_name = "I")]
    point: Option<usize>,
    /// List the points and end
    #[arg(long)]
    dry_run: bool,
    /// Train on fewer than 50 events of a class, or choose a threshold on fewer than 20
    #[arg(long)]
    allow_few_events: bool,
    #[command(flatten)]
    pub(super) device: DeviceArguments,
}

#[derive(Debug, Serialize)]
pub(crate) struct Sweep {
    pub output: PathBuf,
    pub points: Vec<SweepPoint>,
    /// The lowest validation NLL, if those of the points are comparable.
    pub best: Option<usize>,
    /// Points of this call that failed, with the reason.
    pub failed: Vec<(usize, String)>,
    /// Value of each feature, if features were left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<Worth>,
    #[serde(skip)]
    leave_one_out: bool,
    #[serde(skip)]
    is_comparable: bool,
}

/// The points of a sweep, in the order of their numbers.
struct Grid {
    planned: Vec<Planned>,
    expected: Vec<Expected>,
}

/// Outcomes of the points of this call.
#[derive(Default)]
struct Outcomes {
    trained: Vec<usize>,
    failed: Vec<(usize, Error)>,
}

/// Options for writing the runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Writing {
    pub overwrite: bool,
    pub lock_timeout: Duration,
}

impl Arguments {
    pub(super) fn run(&self, comm: &dyn Communicator, writing: Writing) -> Result<Sweep> {
        let planned = sync_result(comm, self.planned())?;
        let chosen = mark_shared(self.chosen(planned.len()))?;
        // All points must be valid before the first one is trained.
        let expected = |planned: &Planned| Expected::new(&self.configuration(&planned.set)?);
        let expected = planned.iter().map(expected).collect::<Result<Vec<_>>>();
        let grid = Grid { expected: sync_result(comm, expected)?, planned };
        if self.dry_run {
            return Ok(self.summary(&grid, &Outcomes::default()));
        }
        sync_result(comm, if is_root(comm) { self.refuse_other_tables() } else { Ok(()) })?;
        let stop = StopFlag::on_signals()?;
        let mut outcomes = Outcomes::default();
        for point in chosen {
            let Planned { shown, set } = &grid.planned[point];
            if is_root(comm) {
                log::info!("point {point} of {}: {}", grid.planned.len(), shown.join(", "));
            }
            let outcome = self
                .train(comm, point, set, writing, &stop)
                .and_then(|()| self.evaluated(comm, point, set));
            match outcome {
                Ok(()) => outcomes.trained.push(point),
                // The settings of one point may be wrong while the others are right.
                Err(error @ (Error::Diverged(_) | Error::Input(_) | Error::Usage(_)))
                    if error.is_shared() || comm.size() == 1 =>
                {
                    outcomes.failed.push((point, error));
                }
                Err(error) => return Err(error),
            }
            let write = || self.write_table(&grid, &outcomes);
            sync_result(comm, if is_root(comm) { write() } else { Ok(()) })?;
        }
        if let (Some(_), Some((_, error))) = (self.point, outcomes.failed.first()) {
            return Err(error.clone());
        }
        Ok(self.summary(&grid, &outcomes))
    }

    /// Refuses to replace files that are not tables of a sweep.
    fn refuse_other_tables(&self) -> Result<()> {
        let table = self.output.join(TABLE);
        OutputKind::Text(TABLE_START).refuse_existing(&table, true)?;
        let table = self.output.join(left_out::TABLE);
        if !self.leave_one_out {
            return Ok(());
        }
        OutputKind::Text(left_out::TABLE_START).refuse_existing(&table, true)
    }

    /// Returns the trainings, in the order of their numbers.
    fn planned(&self) -> Result<Vec<Planned>> {
        if !self.leave_one_out {
            let points = points(&self.grid)?;
            return Ok(points.into_iter().map(|s| Planned { shown: s.clone(), set: s }).collect());
        }
        let config = self.configuration(&[])?;
        if self.evaluate.is_empty() {
            refuse_unlabelled(&config)?;
        }
        left_out::plan(&config, self.seeds)
    }

    /// Evaluates the model of a point of `--leave-one-out`, unless it was evaluated on the same
    /// files.
    fn evaluated(&self, comm: &dyn Communicator, point: usize, settings: &[String]) -> Result<()> {
        let model = self.folder(point).join(MODEL);
        if !self.leave_one_out {
            return Ok(());
        }
        let config = sync_result(comm, self.configuration(settings))?;
        let find = || {
            let files = self.evaluated_files(&config)?;
            Ok(auc_of(&self.folder(point), &files).is_some())
        };
        if value_of_root(comm, find)? {
            return Ok(());
        }
        let data = config.data;
        let own = self.evaluate.is_empty();
        let of = |files: Vec<PathBuf>| if own { files } else { Vec::new() };
        let options = evaluate::Options {
            model,
            files: if own { data.mixed } else { self.evaluate.clone() },
            gamma: of(data.gamma),
            hadron: of(data.hadron),
            schema: data.schema,
            part: EvaluatedParts::Default,
            output: self.folder(point).join(EVALUATION_FOLDER),
            overwrite: true,
            hardware: self.device.hardware(),
            weight: None,
            importance: false,
            strict: false,
            baseline: Vec::new(),
            baseline_cuts: false,
            observation: None,
            watchdog: self.device.watchdog(Run::default()),
        };
        evaluate::run(comm, &options).map(|_| ())
    }

    fn chosen(&self, points: usize) -> Result<Vec<usize>> {
        match self.point {
            Some(point) if point >= points => Err(Fault::new("no such point")
                .expected(format!("--point 0 to {}", points - 1))
                .found(point)
                .advice("an array of jobs for this grid is --array=0-N with N the number of points less one")
                .usage()),
            Some(point) => Ok(vec![point]),
            None => Ok((0..points).collect()),
        }
    }

    fn configuration(&self, settings: &[String]) -> Result<config::Config> {
        let all: Vec<String> = self.set.iter().chain(settings).cloned().collect();
        let mut config = config::load(&self.config, &all)?;
        self.device.apply(&mut config);
        Ok(config)
    }

    fn train(
        &self,
        comm: &dyn Communicator,
        point: usize,
        settings: &[String],
        writing: Writing,
        stop: &StopFlag,
    ) -> Result<()> {
        let options = train::Options {
            config: sync_result(comm, self.configuration(settings))?,
            output: self.folder(point),
            existing: if writing.overwrite { Existing::Replace } else { Existing::Resume },
            allow_engine_change: false,
            stop_after: None,
            dry_run: false,
            allow_few_events: self.allow_few_events,
            command: command_line(),
            lock_timeout: writing.lock_timeout,
        };
        trained(comm, &options, stop).map(|_| ())
    }

    /// Returns the files that models are evaluated on, in the order of their evaluation.
    fn evaluated_files(&self, config: &config::Config) -> Result<Vec<PathBuf>> {
        let data = &config.data;
        let own = [&data.mixed, &data.gamma, &data.hadron];
        let given = if self.evaluate.is_empty() { &own[..] } else { &[&self.evaluate] };
        let mut files = Vec::new();
        for paths in given.iter().filter(|paths| !paths.is_empty()) {
            files.extend(list_files(paths)?);
        }
        Ok(files)
    }

    fn folder(&self, point: usize) -> PathBuf {
        self.output.join(format!("point-{point}"))
    }

    fn summary(&self, grid: &Grid, outcomes: &Outcomes) -> Sweep {
        let of_call = |(i, planned): (usize, &Planned)| {
            let found = SweepPoint::read(i, &planned.shown, self.folder(i), &grid.expected[i]);
            let error = outcomes.failed.iter().find(|(point, _)| *point == i);
            found.with_outcome(error.map(|(_, error)| error))
        };
        let mut points: Vec<SweepPoint> = grid.planned.iter().enumerate().map(of_call).collect();
        sweep_points::mark_other_data(&mut points, &outcomes.trained);
        if self.leave_one_out {
            let files = self.configuration(&[]).and_then(|config| self.evaluated_files(&config));
            if let Err(error) = &files {
                log::warn!("the points have no AUC, as the files to evaluate are unknown: {error}");
            }
            for point in points.iter_mut().filter(|point| !point.is_foreign()) {
                point.auc = files.as_ref().ok().and_then(|files| auc_of(&point.run, files));
            }
        }
        let is_comparable = !self.leave_one_out && sweep_points::are_comparable(&grid.expected);
        let with_nll = points.iter().filter_map(|p| Some((p.validation_nll?, p.number)));
        let best = with_nll.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, point)| point);
        let failed = outcomes.failed.iter().map(|(point, error)| (*point, error.to_string()));
        // A point trained in this call that no longer counts: its data have changed since.
        let lost = points.iter().filter(|p| p.is_foreign() && outcomes.trained.contains(&p.number));
        let lost = lost.map(|point| (point.number, point.ended.clone().unwrap_or_default()));
        Sweep {
            output: self.output.clone(),
            best: best.filter(|_| is_comparable),
            failed: failed.chain(lost).collect(),
            features: left_out::worth(if self.leave_one_out { &points } else { &[] }),
            leave_one_out: self.leave_one_out,
            is_comparable,
            points,
        }
    }

    /// Writes the table. Elements of an array write it at the same time: each under a name of its
    /// own, and again if a point has ended meanwhile.
    fn write_table(&self, grid: &Grid, outcomes: &Outcomes) -> Result<()> {
        let mut sweep = self.summary(grid, outcomes);
        loop {
            let own = self.output.join(format!(".{TABLE}-{}", std::process::id()));
            storage::write_file(&own, sweep.table().as_bytes())?;
            storage::move_to(&own, &self.output.join(TABLE))?;
            if self.leave_one_out {
                left_out::write_table(&sweep.features, &self.output)?;
            }
            let now = self.summary(grid, outcomes);
            let ends = |sweep: &Sweep| {
                let over = sweep.points.iter().filter(|p| p.is_over());
                over.count() + sweep.points.iter().filter(|p| p.auc.is_some()).count()
            };
            if ends(&now) == ends(&sweep) {
                return Ok(());
            }
            sweep = now;
        }
    }
}

/// Returns the AUC of the evaluation of the model in a folder; `None` where there is none of
/// this model and these files, or where a file was changed since.
fn auc_of(folder: &Path, files: &[PathBuf]) -> Option<f64> {
    let (_, hash) = Model::load(&folder.join(MODEL)).ok()?;
    let path = folder.join(EVALUATION_FOLDER).join(EVALUATION);
    let evaluation: Evaluation = serde_json::from_slice(&std::fs::read(&path).ok()?).ok()?;
    let about = &evaluation.about;
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let is_of_files = about.files.iter().map(|file| &file.path).eq(&names);
    let time = |path: &Path| std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let evaluated = time(&path)?;
    let is_current = files.iter().all(|file| time(file).is_some_and(|at| at <= evaluated));
    let is_same = about.model == hash && is_of_files && is_current;
    evaluation.auc.filter(|_| is_same).map(|auc| auc.value)
}

/// Refuses a configuration whose files have no test part with both classes.
fn refuse_unlabelled(config: &config::Config) -> Result<()> {
    let data = &config.data;
    let both = !data.mixed.is_empty() || !data.gamma.is_empty() && !data.hadron.is_empty();
    if both && data.off.is_empty() && config.split.test > 0.0 {
        return Ok(());
    }
    Err(Fault::new("no events of both classes for the evaluation of models without a feature")
        .expected("files of both classes in [data], and split.test above 0")
        .advice("give files with a class column: --evaluate FILE…")
        .usage())
}

/// Returns the settings of every point: the product of the grids, the last one changing fastest.
fn points(grids: &[String]) -> Result<Vec<Vec<String>>> {
    let mut points = vec![Vec::new()];
    let mut keys = Vec::new();
    for grid in grids {
        let usage = |why: &str| {
            Fault::new("cannot parse --grid")
                .expected("section.key=value,value, such as train.learning_rate=1e-3,3e-3")
                .found(format!("'{grid}': {why}"))
                .usage()
        };
        let (key, values) = grid.split_once('=').ok_or_else(|| usage("no '='"))?;
        let (key, values) = (key.trim(), values_of(values));
        if key.is_empty() || values.iter().any(String::is_empty) {
            return Err(usage("an empty key or value"));
        }
        if keys.contains(&key) {
            return Err(usage("the key is in two grids"));
        }
        keys.push(key);
        let with = |point: &Vec<String>, value: &String| {
            point.iter().cloned().chain([format!("{key}={value}")]).collect()
        };
        points = points.iter().flat_map(|p| values.iter().map(move |v| with(p, v))).collect();
        if points.len() > MAX_POINTS {
            return Err(usage(&format!("more than {MAX_POINTS} points")));
        }
    }
    Ok(points)
}

/// Splits values at commas outside of brackets, braces and quotes: `[32],[64, 64]`.
fn values_of(text: &str) -> Vec<String> {
    let (mut values, mut depth, mut quote) = (vec![String::new()], 0_i32, None);
    for c in text.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => quote = Some(c),
            ('[' | '{', None) => depth += 1,
            (']' | '}', None) => depth -= 1,
            (',', None) if depth == 0 => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = values.last_mut() {
            last.push(c);
        }
    }
    values.iter().map(|value| value.trim().to_string()).collect()
}

/// Returns the outcome of the command: partial if points failed.
pub(super) fn outcome(sweep: &Sweep) -> Result<()> {
    if sweep.failed.is_empty() {
        return Ok(());
    }
    let failed: Vec<String> =
        sweep.failed.iter().map(|(p, why)| format!("point {p}: {why}")).collect();
    let fault = Fault::new(format!("{} of {} points failed", failed.len(), sweep.points.len()))
        .found(failed.join("; "))
        .advice("the other points are complete");
    Err(Error::Partial(Box::new(fault)).shared())
}

impl Sweep {
    /// Formats one line per point, fields separated by tabs, with a header line.
    fn table(&self) -> String {
        let key = |setting: &String| setting.split('=').next().unwrap_or_default().to_string();
        let value = |setting: &String| {
            setting.split_once('=').map_or(String::new(), |(_, v)| v.to_string())
        };
        let keys = self.points.first().map_or(Vec::new(), |p| p.settings.iter().map(key).collect());
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.6}"));
        let more: &[String] = if self.leave_one_out { &["auc".to_string()] } else { &[] };
        let names = NAMES.map(str::to_string);
        let mut lines = vec![[&["point".to_string()][..], &keys, &names, more].concat().join("\t")];
        for p in &self.points {
            let state = serde_json::to_value(p.state).ok();
            let state = state.and_then(|s| s.as_str().map(str::to_string)).unwrap_or_default();
            let best = if self.best == Some(p.number) { "*" } else { "" };
            let rest = [
                state,
                p.epochs.to_string(),
                p.best_epoch.map_or("-".to_string(), |e| e.to_string()),
                format!("{}{best}", number(p.validation_nll)),
                number(p.threshold),
                relative(&p.run, &self.output),
            ];
            let settings: Vec<String> = p.settings.iter().map(value).collect();
            let auc = if self.leave_one_out { vec![number(p.auc)] } else { Vec::new() };
            lines.push([&[p.number.to_string()][..], &settings, &rest, &auc].concat().join("\t"));
        }
        lines.join("\n") + "\n"
    }
}

const INCOMPARABLE: &str = "no point is marked as the best: validation NLLs of different features or \
events have different measures and cannot be compared";
const NAMES: [&str; 6] = ["state", "epochs", "best_epoch", "validation_nll", "threshold", "run"];

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split('\t').collect()).collect();
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        for (point, reason) in
            self.points.iter().filter_map(|p| Some((p.number, p.ended.as_ref()?)))
        {
            writeln!(f, "point {point}: {reason}")?;
        }
        if !self.is_comparable {
            writeln!(f, "{INCOMPARABLE}")?;
        }
        if self.leave_one_out {
            write!(f, "{}", left_out::text(&self.features))?;
            writeln!(f, "table: {}", self.output.join(left_out::TABLE).display())?;
        }
        write!(f, "table: {}", self.output.join(TABLE).display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_is_the_product_of_its_values() {
        let grids = ["a.b=1,2", "c=[3, 4],[5],{ seeded = 1 },\"x,y\""].map(str::to_string);
        let points = points(&grids).unwrap();
        assert_eq!(points.len(), 8);
        assert_eq!(points[1], ["a.b=1", "c=[5]"]);
        assert_eq!(points[4], ["a.b=2", "c=[3, 4]"]);
        assert_eq!(points[7], ["a.b=2", "c=\"x,y\""]);
    }

    #[test]
    fn invalid_grids_are_refused() {
        for wrong in [vec!["a"], vec!["=1"], vec!["a="], vec!["a=1,,2"], vec!["a=1", "a=2"]] {
            let wrong: Vec<String> = wrong.into_iter().map(str::to_string).collect();
            assert_eq!(points(&wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        let many = vec![
            format!("a={}", vec!["1"; 200].join(",")),
            format!("b={}", vec!["1"; 200].join(",")),
        ];
        assert!(points(&many).is_err());
    }
}
