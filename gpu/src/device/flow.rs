//! Code that all networks share: launches of a batch, copies to and from the device, and gradient
//! sums.

#![allow(unsafe_code)] // kernel launches

use super::device::{Buffer, Device, cubes};
use super::error::{Result, expect_len};
use super::event_table::{EventTable, no_events};
use super::kernels::gradient::{reduce, row_sums};
use super::kernels::training::count_flags;
use super::network_kernels::{EventLaunch, GradientSums, Kernels, LINE};
use super::tiles::{Tile, TilePlan};
use super::training_buffers::{TrainingBuffers, not_training};
use super::{Adam, DeviceBatch, DeviceFlow, Events, Gradient, Summed, Weights, guarded};
use cubecl::prelude::*;
use std::cell::RefCell;

/// Threads per cube of `row_sums`; part of the order of summation.
const ROW: usize = 128;

/// Sums over the batches of a step.
#[derive(Clone)]
struct Total {
    /// (parameters), two words each
    sums: Buffer,
    /// Unusable tiles.
    tally: Buffer,
}

/// A flow on a device, for any kind of network.
pub(crate) struct Flow<R: Runtime, K: Kernels<R>> {
    device: Device<R>,
    kernels: K,
    features: usize,
    parameters: usize,
    gradient_map: Buffer,
    sums: RefCell<Option<GradientSums>>,
    /// Sums of a single gradient, and of the step in progress.
    total: Total,
    step_total: Total,
    /// Batches of the step in progress: tiles and their losses.
    step: Vec<(TilePlan, Vec<Buffer>)>,
    table: Option<EventTable>,
    training: Option<TrainingBuffers>,
}

impl<R: Runtime, K: Kernels<R>> Flow<R, K> {
    /// Allocates the buffers of a flow without parameters.
    pub(crate) fn new(device: Device<R>, kernels: K, features: usize) -> Result<Flow<R, K>> {
        let map = kernels.gradient_map();
        let total = || -> Result<Total> {
            Ok(Total { sums: device.empty(2 * map.len())?, tally: device.empty(1)? })
        };
        Ok(Flow {
            total: total()?,
            step_total: total()?,
            gradient_map: device.upload(&map),
            parameters: map.len(),
            sums: RefCell::new(None),
            step: Vec::new(),
            table: None,
            training: None,
            device,
            kernels,
            features,
        })
    }

    /// Returns the first tile of each range of tiles, and the number of tiles.
    fn ranges(&self, tiles: usize) -> Vec<u32> {
        let chunks = self.chunks(tiles);
        (0..=chunks).map(|c| (c * tiles / chunks) as u32).collect()
    }

    /// Returns the number of ranges, so that there are enough cubes and the partials fit into a
    /// buffer.
    fn chunks(&self, tiles: usize) -> usize {
        let per_chunk = (tiles * self.kernels.cubes() / self.kernels.target_cubes()).max(1);
        let fit = self.device.largest_buffer() / (8 * self.kernels.stride() as u64);
        tiles.div_ceil(per_chunk).min(fit.clamp(1, 65_535) as usize)
    }

    /// Returns buffers for `events` events and `tiles` tiles; allocates them if the existing ones
    /// are too small.
    fn sums_for(&self, events: usize, tiles: usize) -> Result<GradientSums> {
        let mut kept = self.sums.borrow_mut();
        if let Some(sums) = kept.as_ref().filter(|s| s.events >= events && s.tiles >= tiles) {
            return Ok(sums.clone());
        }
        // Release the old buffers first: there may not be enough memory for both.
        let old = kept.take().map_or((0, 0), |s| (s.events, s.tiles));
        let (events, tiles) = (events.max(old.0), tiles.max(old.1));
        let held = self.table.as_ref().map_or(0, |table| 4 * table.rows().0.len());
        let per_event = self.kernels.event_bytes() + 4 * (self.features + 3);
        let partials = 8 * self.chunks(tiles) * self.kernels.stride();
        self.device.expect_memory((held + per_event * events + partials) as u64)?;
        let sums = GradientSums {
            events,
            tiles,
            log_prob: self.device.empty(events)?,
            ones: self.device.upload(&vec![1.0_f32; events]),
            by_row: self.device.empty(self.kernels.rows() * tiles)?,
            partials: self.device.empty(2 * self.chunks(tiles) * self.kernels.stride())?,
        };
        *kept = Some(sums.clone());
        Ok(sums)
    }

    /// Uploads the events and tiles of one launch.
    fn launch(
        &self,
        batch: &DeviceBatch,
        tiles: &[Tile],
        sums: &GradientSums,
    ) -> Result<EventLaunch> {
        let (start, end) = (tiles[0].start, tiles[tiles.len() - 1].end());
        let table: Vec<u32> =
            tiles.iter().flat_map(|t| [(t.start - start) as u32, t.count as u32]).collect();
        let bounds: Vec<f32> = tiles.iter().map(|t| t.bound).collect();
        let ranges = self.ranges(tiles.len());
        let device = &self.device;
        Ok(EventLaunch {
            n: end - start,
            rows: match batch.events {
                Events::Rows(rows) => {
                    device.upload(&rows[start * self.features..end * self.features])
                }
                Events::Held { numbers, flips } => {
                    let table = self.table.as_ref().ok_or_else(no_events)?;
                    table.gather(device, &numbers[start..end], flips.map(|f| &f[start..end]))?
                }
            },
            loss_weights: match batch.weights {
                Some(weights) => device.upload(&weights[start..end]),
                None => sums.ones.clone(),
            },
            log_prob: sums.log_prob.clone(),
            tiles: device.upload(&table),
            bounds: device.upload(&bounds),
            chunks: ranges.len() - 1,
            ranges: device.upload(&ranges),
            flags: device.upload(&vec![0_u32; tiles.len()]),
            losses: device.empty(tiles.len())?,
        })
    }

    /// Launches the sums of rows and losses over the tiles.
    fn launch_row_sums(
        &self,
        launch: &EventLaunch,
        rows: &Buffer,
        tiles: usize,
        sums: &GradientSums,
    ) {
        let count = self.kernels.rows();
        // SAFETY: tiles lie within the n events of the launch, and `sums` is large enough for these
        // rows and tiles.
        unsafe {
            row_sums::launch_unchecked::<R>(
                &self.device.client,
                CubeCount::Static(count as u32 + 1, tiles.min(65_535) as u32, 1),
                CubeDim::new_1d(ROW as u32),
                rows.arg(),
                launch.log_prob.arg(),
                launch.loss_weights.arg(),
                launch.tiles.arg(),
                sums.by_row.arg(),
                launch.losses.arg(),
                launch.n as u32,
                count as u32,
                tiles as u32,
                ROW,
            );
        }
    }

    /// Launches the addition of a launch's gradient to `total`.
    fn launch_reduce(
        &self,
        launch: &EventLaunch,
        tiles: usize,
        first: bool,
        sums: &GradientSums,
        total: &Total,
    ) {
        // SAFETY: the kernel checks its index against the number of parameters; the map belongs to
        // these partials and rows.
        unsafe {
            reduce::launch_unchecked::<R>(
                &self.device.client,
                cubes(self.parameters.div_ceil(LINE)),
                CubeDim::new_1d(LINE as u32),
                sums.partials.arg(),
                sums.by_row.arg(),
                self.gradient_map.arg(),
                launch.bounds.arg(),
                total.sums.arg(),
                launch.flags.arg(),
                self.parameters as u32,
                self.kernels.stride() as u32,
                launch.chunks as u32,
                tiles as u32,
                u32::from(first),
            );
        }
    }

    /// Launches the count of unusable tiles.
    fn launch_tally(&self, launch: &EventLaunch, tiles: usize, first: bool, total: &Total) {
        // SAFETY: there are as many flags as tiles.
        unsafe {
            count_flags::launch_unchecked::<R>(
                &self.device.client,
                CubeCount::Static(1, 1, 1),
                CubeDim::new_1d(ROW as u32),
                launch.flags.arg(),
                total.tally.arg(),
                tiles as u32,
                u32::from(first),
                ROW,
            );
        }
    }

    /// Divides a batch into tiles and launches.
    fn plan(&self, batch: &DeviceBatch) -> Result<TilePlan> {
        TilePlan::new(batch, self.features, self.kernels.launch_events(&self.device)[1])
    }

    /// Adds the gradient of a batch to `total`, or overwrites `total` if `begins`. Returns the
    /// losses of the tiles, launch by launch.
    fn sum(
        &self,
        plan: &TilePlan,
        batch: &DeviceBatch,
        begins: bool,
        total: &Total,
    ) -> Result<Vec<Buffer>> {
        let Some((events, tiles)) = plan.largest() else { return Ok(Vec::new()) };
        let sums = self.sums_for(events, tiles)?;
        let mut losses = Vec::new();
        for (i, tiles) in plan.launches().enumerate() {
            let (launch, first) = (self.launch(batch, tiles, &sums)?, begins && i == 0);
            let rows = self.kernels.gradient(&self.device, &launch, &sums)?;
            self.launch_row_sums(&launch, &rows, tiles.len(), &sums);
            self.launch_reduce(&launch, tiles.len(), first, &sums, total);
            self.launch_tally(&launch, tiles.len(), first, total);
            losses.push(launch.losses);
        }
        Ok(losses)
    }

    /// Waits for the batches that are summed in `total`; returns the losses of their shards and the
    /// number of unusable tiles.
    fn wait(&self, batches: &[(TilePlan, Vec<Buffer>)], total: &Total) -> Result<Summed> {
        let shards = batches.iter().map(|(plan, _)| plan.shards()).max().unwrap_or(0);
        let mut summed = Summed { unusable: 0, loss: vec![0.0; shards] };
        if batches.iter().all(|(_, losses)| losses.is_empty()) {
            return Ok(summed);
        }
        let buffers = batches.iter().flat_map(|(_, losses)| losses).chain([&total.tally]);
        let mut words = self.device.read_all(buffers)?.into_iter();
        for (plan, _) in batches {
            for (tiles, losses) in plan.launches().zip(words.by_ref()) {
                // Add the losses in the order of the tiles.
                for (tile, bits) in tiles.iter().zip(losses) {
                    summed.loss[tile.shard] += f64::from(f32::from_bits(bits));
                }
            }
        }
        summed.unusable =
            words.next().and_then(|tally| tally.first().copied()).map_or(0, u64::from);
        Ok(summed)
    }

    /// Reads the sums of a step.
    fn read_sums(&self, total: &Total, sums: &mut [i64]) -> Result<()> {
        let mut words = vec![0_u32; 2 * self.parameters];
        self.device.read(&total.sums, &mut words)?;
        for (sum, word) in sums.iter_mut().zip(words.as_chunks::<2>().0) {
            *sum = (u64::from(word[0]) | u64::from(word[1]) << 32).cast_signed();
        }
        Ok(())
    }
}

impl<R: Runtime, K: Kernels<R>> DeviceFlow for Flow<R, K> {
    fn describe(&self) -> &str {
        &self.device.name
    }

    fn set_params(&mut self, params: &[f32]) -> Result<()> {
        expect_len("parameters", self.parameters, params.len())?;
        let Flow { device, kernels, .. } = self;
        guarded(|| {
            kernels.set_params(device, device.upload(params));
            Ok(())
        })
    }

    fn log_prob(&self, events: &[f32], log_prob: &mut [f32]) -> Result<()> {
        expect_len("numbers of the events", log_prob.len() * self.features, events.len())?;
        guarded(|| {
            // Launch the next part before reading the last one.
            let mut waiting: Option<(Buffer, &mut [f32])> = None;
            let most = self.kernels.launch_events(&self.device)[0];
            for (rows, out) in events.chunks(most * self.features).zip(log_prob.chunks_mut(most)) {
                let buffer = self.device.empty(out.len())?;
                let rows = self.device.upload(rows);
                self.kernels.log_prob(&self.device, &rows, &buffer, out.len())?;
                if let Some((buffer, out)) = waiting.replace((buffer, out)) {
                    self.device.read(&buffer, out)?;
                }
            }
            waiting.map_or(Ok(()), |(buffer, out)| self.device.read(&buffer, out))
        })
    }

    fn inverse(&self, latent: &[f32], events: &mut [f32]) -> Result<()> {
        expect_len("numbers of the events", latent.len(), events.len())?;
        guarded(|| {
            let most = self.kernels.launch_events(&self.device)[0] * self.features;
            for (latent, out) in latent.chunks(most).zip(events.chunks_mut(most)) {
                let rows = self.device.empty(out.len())?;
                let latent = self.device.upload(latent);
                self.kernels.inverse(&self.device, &latent, &rows, out.len() / self.features)?;
                self.device.read(&rows, out)?;
            }
            Ok(())
        })
    }

    fn gradient(&self, batch: &DeviceBatch) -> Result<Gradient> {
        guarded(|| {
            let plan = self.plan(batch)?;
            let mut sums = vec![0; self.parameters];
            let losses = self.sum(&plan, batch, true, &self.total)?;
            let any = !losses.is_empty();
            let Summed { unusable, loss } = self.wait(&[(plan, losses)], &self.total)?;
            if any {
                self.read_sums(&self.total, &mut sums)?;
            }
            Ok(Gradient { sums, unusable, loss })
        })
    }

    fn capacity(&self) -> usize {
        let most = self.device.largest_buffer().min(self.device.memory_left());
        // Kernels count numbers in 32 bits.
        ((most / 4).min(u64::from(u32::MAX)) / self.features as u64) as usize
    }

    fn upload_events(
        &mut self,
        events: usize,
        pieces: &mut dyn Iterator<Item = &[f32]>,
    ) -> Result<()> {
        guarded(|| {
            self.table = None; // there may not be enough memory for both
            self.table = Some(EventTable::upload(&self.device, events, self.features, pieces)?);
            self.device.finish()
        })
    }

    fn score_held(&self, turns: usize) -> Result<()> {
        let (rows, count) = self.table.as_ref().ok_or_else(no_events)?.rows();
        guarded(|| {
            let most = self.kernels.launch_events(&self.device)[0];
            let log_prob = self.device.empty(count.min(most))?;
            for _ in 0..turns {
                self.kernels.log_prob(&self.device, rows, &log_prob, count.min(most))?;
            }
            self.device.finish()
        })
    }

    fn begin(&mut self, weights: &Weights) -> Result<()> {
        for values in weights.all() {
            expect_len("parameters", self.parameters, values.len())?;
        }
        guarded(|| {
            let training = TrainingBuffers::new(&self.device, weights)?;
            self.kernels.set_params(&self.device, training.params());
            self.training = Some(training);
            self.device.finish()
        })
    }

    fn add_gradient(&mut self, batch: &DeviceBatch) -> Result<()> {
        let begins = self.step.iter().all(|(_, losses)| losses.is_empty());
        guarded(|| {
            let plan = self.plan(batch)?;
            let losses = self.sum(&plan, batch, begins, &self.step_total)?;
            self.step.push((plan, losses));
            Ok(())
        })
    }

    fn collect(&mut self) -> Result<Summed> {
        let step = std::mem::take(&mut self.step);
        guarded(|| {
            if step.iter().all(|(_, losses)| losses.is_empty()) {
                // Nothing was launched: the buffers contain the sums of the previous step.
                self.step_total.sums = self.device.upload(&vec![0_u32; 2 * self.parameters]);
                self.step_total.tally = self.device.upload(&[0_u32]);
            }
            self.wait(&step, &self.step_total)
        })
    }

    fn sums(&self, sums: &mut [i64]) -> Result<()> {
        expect_len("gradient sums", self.parameters, sums.len())?;
        guarded(|| self.read_sums(&self.step_total, sums))
    }

    fn update(&mut self, sums: Option<&[i64]>, adam: &Adam) -> Result<()> {
        if let Some(sums) = sums {
            expect_len("gradient sums", self.parameters, sums.len())?;
        }
        guarded(|| {
            let total = match sums {
                None => self.step_total.clone(),
                Some(sums) => {
                    let words: Vec<u32> =
                        sums.iter().flat_map(|s| [*s as u32, (*s >> 32) as u32]).collect();
                    Total { sums: self.device.upload(&words), tally: self.device.upload(&[0_u32]) }
                }
            };
            let training = self.training.as_mut().ok_or_else(not_training)?;
            training.launch_update(&self.device, &total.sums, &total.tally, adam);
            self.kernels.set_params(&self.device, training.params());
            Ok(())
        })
    }

    fn gradient_norm(&self) -> Result<Option<f64>> {
        guarded(|| self.training.as_ref().ok_or_else(not_training)?.gradient_norm(&self.device))
    }

    fn weights(&self, weights: &mut Weights) -> Result<()> {
        for values in weights.all() {
            expect_len("parameters", self.parameters, values.len())?;
        }
        guarded(|| {
            let training = self.training.as_ref().ok_or_else(not_training)?;
            training.download(&self.device, weights)
        })
    }
}
