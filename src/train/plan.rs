//! Resolves a configuration to a plan: files found and hashed, rows counted, shards fixed.
//!
//! All checks that do not read events are made here, on all ranks, before anything is written.

use super::flows::{self, FlowPlan, Objective, Population};
use super::objectives::off_source::OffSourceTransform;
use crate::comm::{Communicator, is_root, sync_result};
use crate::config::{Class, Config, Mode, OffSource};
use crate::data::files::list;
use crate::data::schema::canonical_unit;
use crate::data::selection::Selection;
use crate::data::selection::shards::{Dealing, default_shards};
use crate::data::selection::shower_key;
use crate::data::selection::split::Splitter;
use crate::data::table::{InputFile, Table};
use crate::dataset::catalog::{self, Catalog};
use crate::dataset::event_store::{self, RowSelection};
use crate::dataset::output::extraction::Extractions;
use crate::dataset::roles;
use crate::dataset::sketch;
use crate::dataset::source::{self, RowTransform, Source};
use crate::dataset::values;
use crate::error::{Fault, Result};
use crate::model::DataFile;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;

/// Keys of a run: the run itself, which telescopes and portions share, or a part of it.
const RUN: &str = "run";
const RUN_ID: &str = "run_id";

const SWAPPED: &str = "the files are swapped: exchange data.gamma and data.hadron, or list files of both classes under data.mixed";

/// Plan of a training, equal on all ranks.
#[derive(Debug, Clone)]
pub struct TrainingPlan {
    pub config: Config,
    pub spec: FlowSpec,
    pub flows: Vec<FlowPlan>,
    pub populations: Vec<Population>,
    pub stages: Vec<Objective>,
    /// Parameters of all flows together.
    pub parameters: usize,
    pub sources: Vec<Source>,
    pub data: Vec<DataFile>,
    pub selection: Selection,
    pub units: Vec<String>, // (features)
    pub splitter: Splitter,
    pub dealing: Dealing,
    /// Hadrons from experimental files, and the simulated ones to compare with.
    pub off: Option<Arc<OffSourceTransform>>,
    pub compared: Vec<Source>,
    /// Files of synthetic anomalies.
    pub filed: Vec<Source>,
    /// Hash of the configuration without `[run]` and of the content of the data.
    pub run_hash: String,
}

impl TrainingPlan {
    /// Resolves and checks a configuration, and hashes its files.
    ///
    /// # Errors
    /// Usage or input error with the first setting or file that cannot be used.
    pub fn new(comm: &dyn Communicator, config: &Config) -> Result<TrainingPlan> {
        let mut plan = TrainingPlan::without_hashes(comm, config)?;
        let given: Vec<Source> = plan.sources.iter().chain(&plan.compared).cloned().collect();
        roles::refuse_swapped(comm, &given, SWAPPED)?;
        values::refuse_implausible(comm, &given, &plan.selection)?;
        let all = || plan.sources.iter().chain(&plan.filed);
        let paths: Vec<&Path> = all().map(|source| source.path.as_path()).collect();
        let hashes = sync_result(comm, catalog::hash_files(comm, &paths))?;
        let refuse_altered = || Extractions::of(paths.iter().copied())?.refuse_altered(&hashes);
        sync_result(comm, if is_root(comm) { refuse_altered() } else { Ok(()) })?;
        let data = all().zip(hashes);
        plan.data = data
            .map(|(source, blake3)| DataFile { blake3, rows: source.rows, class: source.class })
            .collect();
        let content: Vec<&str> = plan.data.iter().map(|f| f.blake3.as_str()).collect();
        plan.run_hash = run_hash(config, &content)?;
        Ok(plan)
    }

    /// Resolves a configuration without hashing the content of its files.
    pub fn without_hashes(comm: &dyn Communicator, config: &Config) -> Result<TrainingPlan> {
        sync_result(comm, TrainingPlan::resolve(comm, config))
    }

    fn resolve(comm: &dyn Communicator, config: &Config) -> Result<TrainingPlan> {
        let spec = config.flow_spec();
        let shards = config.train.shards.unwrap_or_else(|| default_shards(config.train.batch));
        if comm.size() as u64 > shards {
            return Err(Fault::new("more ranks than logical shards")
                .expected(format!("at most {shards} ranks at batch {}", config.train.batch))
                .found(comm.size())
                .advice("start fewer ranks, or set train.shards or train.batch higher (both change the result)")
                .usage());
        }
        let mut selection = Selection::new(&config.features.columns, &config.cuts)?
            .with_weight(config.data.weight.as_deref())?;
        if let Some(bins) = &config.thresholds {
            selection = selection.with_bins(&bins.per, &bins.edges)?;
        }
        let (mode, normal) = (config.model.mode, config.model.normal);
        let flows = flows::flows(mode, normal);
        let off = config.off_source().map(|off| with_run(comm, off, config)).transpose()?;
        let off = off.map(|off| OffSourceTransform::new(off, config, &selection));
        let off = off.transpose()?.map(Arc::new);
        let InputFiles { sources, compared, filed, units } =
            FileFinder { comm, config, off: off.as_ref(), selection: &selection }.find()?;
        let rows = sources.iter().map(|s| s.rows).sum();
        Ok(TrainingPlan {
            parameters: flows.len() * Layout::new(&spec).len(),
            spec,
            flows,
            populations: flows::populations(mode, normal),
            stages: flows::stages(config),
            sources,
            off,
            compared,
            filed,
            data: Vec::new(),
            selection,
            units,
            splitter: Splitter::new(&config.split),
            dealing: Dealing::new(rows, shards, config.train.seed),
            run_hash: String::new(),
            config: config.clone(),
        })
    }

    /// Returns the selection for the rows of a class.
    pub fn row_selection(&self, class: Class) -> RowSelection<'_> {
        RowSelection {
            selection: &self.selection,
            splitter: &self.splitter,
            key: self.config.split.key.as_deref(),
            class,
            dealing: self.dealing,
            seed: self.config.train.seed,
            sketched: None,
        }
    }

    /// Returns the size of the sketches of the training events.
    pub fn sketched(&self) -> sketch::SketchShape {
        let rows: u64 = self.sources.iter().chain(&self.filed).map(|s| s.rows).sum();
        sketch::SketchShape::new((rows as f64 * (1.0 - self.config.split.test)).ceil() as u64)
    }

    /// Returns the number of parameters of each flow.
    pub fn flow_parameters(&self) -> usize {
        self.parameters / self.flows.len()
    }

    /// Returns the number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.sources.iter().map(|s| s.rows).sum()
    }

    /// Returns the bytes that one rank of `ranks` needs: its events, and the state of the
    /// optimiser.
    pub fn memory(&self, ranks: u64, threads: u64) -> u64 {
        let events = self.rows().div_ceil(ranks) * 4 * self.spec.features as u64;
        let weights = self.parameters as u64 * (5 * 4 + 16 + threads * 24);
        events + weights
    }
}

/// Returns the hash of a configuration without `[run]` and of the hashes of the files.
pub fn run_hash(config: &Config, files: &[&str]) -> Result<String> {
    let text = format!("{}\n{}", config.hash()?, files.join("\n"));
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}

/// Files in a fixed order, with their common units.
struct InputFiles {
    /// Files with rows of the trained classes.
    sources: Vec<Source>,
    /// Files of simulated hadrons to compare experimental ones with.
    compared: Vec<Source>,
    /// Files of anomalies.
    filed: Vec<Source>,
    units: Vec<String>, // (features)
}

/// Lists the files of a training, and checks their columns.
struct FileFinder<'c> {
    comm: &'c dyn Communicator,
    config: &'c Config,
    off: Option<&'c Arc<OffSourceTransform>>,
    selection: &'c Selection,
}

impl FileFinder<'_> {
    /// Finds the files of a training. One of the ranks has opened every needed column of every
    /// file.
    fn find(&self) -> Result<InputFiles> {
        refuse_shared(self.comm, self.config, self.off.is_some())?;
        let Catalog { mut sources, mut said } = self.list(&self.roles(), true)?;
        let normal = self.config.model.normal;
        if sources.is_empty() {
            return Err(Fault::new("no files to train on")
                .expected(format!("data.{normal} or data.mixed in the configuration"))
                .usage());
        }
        sources.iter_mut().for_each(|source| self.view(source));
        let (mut compared, mut filed) = (Vec::new(), Vec::new());
        if self.off.is_some() {
            let files = self.list(&[(&self.config.data.hadron, Some(Class::Hadron))], false)?;
            said.extend(numbered_after(sources.len(), files.said));
            compared = files.sources;
        }
        if let Some(anomalies) = &self.config.anomalies {
            // All their events are used, whatever their class.
            let files = self.list(&[(&anomalies.files, Some(normal))], false)?;
            said.extend(numbered_after(sources.len() + compared.len(), files.said));
            filed = files.sources;
        }
        let units = same_units(&said, |i| {
            let all = sources.iter().chain(&compared).chain(&filed);
            all.skip(i).map(|source| &*source.path).next().unwrap_or(Path::new(""))
        })?;
        Ok(InputFiles { sources, compared, filed, units })
    }

    /// Returns the lists of files to train on, with the class of each.
    fn roles(&self) -> [catalog::Role<'_>; 3] {
        let model = &self.config.model;
        let (own, mut other) = (self.files_of(model.normal), self.files_of(model.normal.other()));
        if model.mode != Mode::Ratio {
            if !other.is_empty() {
                log::info!(
                    "{} training reads the normal class only; the files of the other class are \
                     not used",
                    model.mode.name()
                );
            }
            other = &[];
        }
        let mixed = &self.config.data.mixed;
        [(own, Some(model.normal)), (other, Some(model.normal.other())), (mixed, None)]
    }

    fn files_of(&self, class: Class) -> &[PathBuf] {
        match class {
            Class::Gamma => &self.config.data.gamma,
            Class::Hadron if self.off.is_some() => &self.config.data.off,
            Class::Hadron => &self.config.data.hadron,
        }
    }

    /// Lists files and checks their columns, of experimental hadrons with their off-source view if
    /// `is_viewed`.
    fn list(&self, roles: &[catalog::Role], is_viewed: bool) -> Result<Catalog> {
        let schema = self.config.data.schema.as_deref();
        catalog::catalogue(self.comm, roles, schema, &|source: &Source, file: &mut InputFile| {
            let mut source = source.clone();
            if is_viewed {
                self.view(&mut source);
            }
            check_columns(&source, file, self.selection, self.config.split.key.as_deref())
        })
    }

    /// Sets the off-source view of a file of hadrons, if there is one.
    fn view(&self, source: &mut Source) {
        if source.class == Some(Class::Hadron) {
            source.view = self.off.map(|off| Arc::clone(off) as Arc<dyn RowTransform>);
        }
    }
}

/// Adds `before` to the numbers of files.
fn numbered_after(
    before: usize,
    said: Vec<(usize, String)>,
) -> impl Iterator<Item = (usize, String)> {
    said.into_iter().map(move |(i, units)| (before + i, units))
}

/// Determines the key of a run from the files, if the settings leave it open.
fn with_run(comm: &dyn Communicator, off: OffSource, config: &Config) -> Result<OffSource> {
    if !off.run.is_empty() {
        return Ok(off);
    }
    let roles = [(&*config.data.off, Some(Class::Hadron))];
    let look = |_: &Source, file: &mut InputFile| {
        Ok(if file.table().key_names().contains(&RUN) { RUN } else { RUN_ID }.to_string())
    };
    let found = catalog::catalogue(comm, &roles, config.data.schema.as_deref(), &look)?;
    let all = found.said.iter().all(|(_, key)| key == RUN);
    let run = if all { RUN } else { RUN_ID };
    Ok(OffSource { run: run.to_string(), ..off })
}

/// Returns an error if a file is in two of the lists that the training reads: it would be compared
/// with itself.
fn refuse_shared(comm: &dyn Communicator, config: &Config, is_off: bool) -> Result<()> {
    let (data, mode, normal) = (&config.data, config.model.mode, config.model.normal);
    let none: &[PathBuf] = &[];
    let read = |class: Class| mode == Mode::Ratio || normal == class;
    let of = |is_read: bool, files| if is_read { files } else { none };
    let lists: [(&str, &[PathBuf]); 5] = [
        ("data.gamma", of(read(Class::Gamma), &data.gamma)),
        ("data.hadron", of(read(Class::Hadron), &data.hadron)),
        ("data.off", of(is_off, &data.off)),
        ("data.mixed", &data.mixed),
        ("anomalies.files", config.anomalies.as_ref().map_or(none, |of| &of.files)),
    ];
    sync_result(comm, if is_root(comm) { list::refuse_shared(&lists) } else { Ok(()) })
}

/// Opens every needed column of a file; returns the units of the features.
fn check_columns(
    source: &Source,
    file: &mut InputFile,
    selection: &Selection,
    key: Option<&[String]>,
) -> Result<String> {
    event_store::open_columns(file, source, &source::request(source, selection, key))?;
    let table = file.table();
    if key.is_none() {
        shower_key::refuse_scattered(table)?;
    }
    serde_json::to_string(&feature_units(table, selection))
        .map_err(|e| Fault::new("cannot encode units").found(e).internal())
}

/// Returns the units of the first file; differing units of a later file are an error.
fn same_units<'a>(
    said: &[(usize, String)],
    path: impl Fn(usize) -> &'a Path,
) -> Result<Vec<String>> {
    let read = |text: &str| -> Result<Vec<String>> {
        serde_json::from_str(text).map_err(|e| Fault::new("cannot read units").found(e).internal())
    };
    let Some((_, first)) = said.first() else { return Ok(Vec::new()) };
    let units = read(first)?;
    match said.iter().find(|(_, other)| other != first) {
        None => Ok(units),
        Some((file, other)) => Err(Fault::new("units differ between files")
            .file(path(*file))
            .expected(format!("{units:?}"))
            .found(format!("{:?}", read(other)?))
            .input()),
    }
}

/// Returns the unit of each feature in a table.
pub fn feature_units(table: &Table, selection: &Selection) -> Vec<String> {
    let unit = |name: &str| table.unit(name).or(canonical_unit(name)).unwrap_or("1").to_string();
    selection.features().iter().map(|f| unit(&f.name)).collect()
}
