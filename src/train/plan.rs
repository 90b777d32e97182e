//! From a configuration to a plan: files found and hashed, rows counted, shards fixed.
//!
//! Everything that can be refused without reading events is refused here, on all ranks
//! alike, before anything is written.

use super::flows::{self, FlowPlan, Objective, Population};
use super::off_source::OffSourceView;
use crate::config::{Class, Config, Mode};
use crate::data::catalog::{self, Catalog};
use crate::data::schema::canonical_unit;
use crate::data::selection::Selection;
use crate::data::shards::{Dealing, default_shards};
use crate::data::split::Splitter;
use crate::data::store::{self, Recipe, Source, View};
use crate::data::table::Table;
use crate::error::{Fault, Result};
use crate::model::DataFile;
use crate::world::{World, agree};
use std::path::Path;
use std::sync::Arc;
use taiga_flow_gpu::layout::Layout;
use taiga_flow_gpu::spec::FlowSpec;

#[derive(Debug, Clone)]
pub struct Plan {
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
    /// Hadrons from experimental files, and simulated ones they are compared with.
    pub off: Option<Arc<OffSourceView>>,
    pub compared: Vec<Source>,
    /// Configuration without `[run]`, and the data's content.
    pub run_hash: String,
}

impl Plan {
    pub fn new(world: &dyn World, config: &Config) -> Result<Plan> {
        let outcome = Plan::resolve(world, config);
        let mut plan = agree(world, outcome)?;
        let paths: Vec<&Path> = plan.sources.iter().map(|source| source.path.as_path()).collect();
        let hashes = agree(world, catalog::hash_files(world, &paths))?;
        plan.data = plan
            .sources
            .iter()
            .zip(hashes)
            .map(|(source, blake3)| DataFile { blake3, rows: source.rows, class: source.class })
            .collect();
        let content: Vec<&str> = plan.data.iter().map(|f| f.blake3.as_str()).collect();
        let text = format!("{}\n{}", config.hash()?, content.join("\n"));
        plan.run_hash = blake3::hash(text.as_bytes()).to_hex().to_string();
        Ok(plan)
    }

    fn resolve(world: &dyn World, config: &Config) -> Result<Plan> {
        let spec = config.flow_spec();
        let shards = config.train.shards.unwrap_or_else(|| default_shards(config.train.batch));
        if world.size() as u64 > shards {
            return Err(Fault::new("more ranks than logical shards")
                .expected(format!("at most {shards} ranks at batch {}", config.train.batch))
                .found(world.size())
                .advice("start fewer ranks, or set train.shards or train.batch higher (both change the result)")
                .usage());
        }
        let selection = Selection::new(&config.features.columns, &config.cuts)?
            .with_weight(config.data.weight.as_deref())?;
        let (mode, normal) = (config.model.mode, config.model.normal);
        let flows = flows::flows(mode, normal);
        let off = config.off_source().map(|off| OffSourceView::new(off, config, &selection));
        let off = off.transpose()?.map(Arc::new);
        let (sources, compared, units) = sources(world, config, off.as_ref(), &selection)?;
        let rows = sources.iter().map(|s| s.rows).sum();
        Ok(Plan {
            parameters: flows.len() * Layout::new(&spec).len(),
            spec,
            flows,
            populations: flows::populations(mode, normal),
            stages: flows::stages(config),
            sources,
            off,
            compared,
            data: Vec::new(),
            selection,
            units,
            splitter: Splitter::new(&config.split),
            dealing: Dealing::new(rows, shards, config.train.seed),
            run_hash: String::new(),
            config: config.clone(),
        })
    }

    /// What is asked of every row of a class.
    pub fn recipe(&self, class: Class) -> Recipe<'_> {
        Recipe {
            selection: &self.selection,
            splitter: &self.splitter,
            key: self.config.split.key.as_deref(),
            class,
            dealing: self.dealing,
            seed: self.config.train.seed,
        }
    }

    pub fn rows(&self) -> u64 {
        self.sources.iter().map(|s| s.rows).sum()
    }

    /// Bytes that one rank of `ranks` needs: its events, and the optimiser's state.
    pub fn memory(&self, ranks: u64, threads: u64) -> u64 {
        let events = self.rows().div_ceil(ranks) * 4 * self.spec.features as u64;
        let weights = self.parameters as u64 * (5 * 4 + 16 + threads * 24);
        events + weights
    }
}

/// The files whose rows can be of a class that is trained on, in a fixed order; the simulated
/// hadrons that experimental ones are compared with; and the features' units. Every needed
/// column of every file has been opened then, by one of the ranks.
fn sources(
    world: &dyn World,
    config: &Config,
    off: Option<&Arc<OffSourceView>>,
    selection: &Selection,
) -> Result<(Vec<Source>, Vec<Source>, Vec<String>)> {
    let of = |class| match class {
        Class::Gamma => &config.data.gamma,
        Class::Hadron if off.is_some() => &config.data.off,
        Class::Hadron => &config.data.hadron,
    };
    let (mode, normal) = (config.model.mode, config.model.normal);
    let both = mode == Mode::Ratio;
    let (own, other) = (of(normal), of(normal.other()));
    if !both && !other.is_empty() {
        log::info!(
            "{} training reads the normal class only; the other class's files are not used",
            mode.name()
        );
    }
    let none = Vec::new();
    let other = if both { other } else { &none };
    let roles: [catalog::Role; 3] =
        [(own, Some(normal)), (other, Some(normal.other())), (&config.data.mixed, None)];
    let view = |source: &mut Source| {
        if source.class == Some(Class::Hadron) {
            source.view = off.map(|off| Arc::clone(off) as Arc<dyn View>);
        }
    };
    let schema = config.data.schema.as_deref();
    let look = |viewed: bool| {
        move |source: &Source, table: &Table| {
            let mut source = source.clone();
            if viewed {
                view(&mut source);
            }
            check_columns(&source, table, selection, config.split.key.as_deref())
        }
    };
    let Catalog { mut sources, mut said } = catalog::catalogue(world, &roles, schema, &look(true))?;
    if sources.is_empty() {
        return Err(Fault::new("no files to train on")
            .expected(format!("data.{normal} or data.mixed in the configuration"))
            .usage());
    }
    sources.iter_mut().for_each(view);
    let mut compared = Vec::new();
    if off.is_some() {
        let roles = [(&*config.data.hadron, Some(Class::Hadron))];
        let found = catalog::catalogue(world, &roles, schema, &look(false))?;
        said.extend(found.said.into_iter().map(|(i, units)| (sources.len() + i, units)));
        compared = found.sources;
    }
    let units = same_units(&said, |i| {
        sources.iter().chain(&compared).nth(i).map_or(Path::new(""), |s| &s.path)
    })?;
    Ok((sources, compared, units))
}

/// Opens every needed column of a file; the features' units.
fn check_columns(
    source: &Source,
    table: &Table,
    selection: &Selection,
    key: Option<&[String]>,
) -> Result<String> {
    store::open_columns(table, source, &store::request(source, selection, key))?;
    serde_json::to_string(&feature_units(table, selection))
        .map_err(|e| Fault::new("cannot tell units").found(e).internal())
}

/// The units that were said of files, each with the first file they were said of; refuses
/// others than those of the first file.
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

/// The unit of each feature as a table gives it.
pub fn feature_units(table: &Table, selection: &Selection) -> Vec<String> {
    let unit = |name: &str| table.unit(name).or(canonical_unit(name)).unwrap_or("1").to_string();
    selection.features().iter().map(|f| unit(&f.name)).collect()
}
