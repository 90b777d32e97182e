//! Ranks as MPI processes: the only file that says `mpi::`.
//!
//! MPI's own error handling stays at `MPI_ERRORS_ARE_FATAL`: the Rust binding drops
//! return codes, and with a dead peer a wrong sum has come back as success. A rank
//! that unwinds or leaves by itself would wait in `MPI_Finalize` for ever, so
//! [`abort_on_panic`] and [`Communicator::abort`] end all ranks. MPI counts in i32, so long
//! buffers travel in pieces. Only the main thread may call collectives; `abort`
//! works from any thread.
//!
//! Long sums over several nodes go through lanes: the ranks of a node first add up a share
//! of the vector each, the ranks with the same place on their nodes add these shares over
//! nodes, and the ranks of a node put them together. The network then carries each sum once
//! per node and not once per rank. Which way is the fastest depends on the network, so the
//! first long sum tries them; all give the same bits.

use std::cell::{Cell, RefCell};
use std::os::raw::{c_int, c_void};
use std::time::{Duration, Instant};

use mpi::collective::SystemOperation;
use mpi::datatype::{AsDatatype, Buffer, Collection, PartitionMut, Pointer};
use mpi::environment::{Threading, Universe};
use mpi::point_to_point::{MatchedReceiveVec, send_receive_into};
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::{
    Communicator as _, CommunicatorCollectives, Destination, Equivalence, Root, Source,
};

use super::Communicator;
use super::lanes::{self, Buffers, PairExchange};
use super::packing::pack;
use super::watchdog::process_monitor::{Phase, ProcessMonitor};
use crate::error::{Fault, Result};
use crate::memory;
use taiga_flow_gpu::panics;

/// Bytes in one message: far below i32, and a bound on what the library buffers.
const PIECE_BYTES: usize = 64 << 20;

unsafe extern "C" {
    /// The value of the macro `MPI_IN_PLACE`.
    // Safe: `in_place.c` returns a constant of MPI's header and touches nothing.
    safe fn taiga_flow_in_place() -> *mut c_void;
}

/// Sums of at least so many words go through lanes; shorter ones are over at once.
const LONG: usize = 2048;

/// Timed trials of each way, after one that is not.
const TRIALS: usize = 4;

/// Long sums after which the ways are tried once more: the gradients of a new flow are
/// mostly zeros, and pack better than all that follow.
const AGAIN: u64 = 200;

/// What overrides the choice of a way: `flat`, `lanes` or `packed`.
const CHOICE: &str = "TAIGA_FLOW_REDUCTION";

/// How long sums are made over several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One all-reduce of MPI over all ranks.
    Flat,
    /// Node by node, then an all-reduce of MPI per lane.
    Lanes,
    /// Node by node, then our own all-reduce of packed words per lane.
    Packed,
}

impl Way {
    const ALL: [(Way, &str); 3] =
        [(Way::Flat, "flat"), (Way::Lanes, "lanes"), (Way::Packed, "packed")];
}

/// The ranks of this node and, for a rank that has a lane, those with its place on the
/// others. Where nodes differ in their ranks there is one lane, of the first on each.
struct Nodes {
    node: SimpleCommunicator,
    lane: Option<SimpleCommunicator>,
    lanes: usize,
    way: Cell<Option<Way>>,
    /// Whether the way was asked for and is not to be chosen.
    fixed: bool,
    long_sums: Cell<u64>,
    scratch: RefCell<SumScratch>,
}

#[derive(Default)]
struct SumScratch {
    whole: Vec<u64>, // (lanes, words of a share)
    share: Vec<u64>,
    signed: Vec<i64>,
    buffers: Buffers,
}

/// This process as one of the ranks of `MPI_COMM_WORLD`.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    /// Where there are several nodes.
    nodes: Option<Nodes>,
    /// Its drop waits for all ranks in `MPI_Finalize`.
    _universe: Universe,
    /// After the universe: it watches the end as well.
    monitor: ProcessMonitor,
}

impl Mpi {
    /// Initialises MPI. Where that fails, MPI itself tells why and ends the process.
    pub(super) fn initialise(deadline: Option<Duration>) -> Result<Mpi> {
        let monitor = ProcessMonitor::watch(deadline, abort)?;
        let (universe, threading) = mpi::initialize_with_threading(Threading::Funneled)
            .ok_or_else(|| Fault::new("MPI was initialised twice in one process").internal())?;
        if threading < Threading::Funneled {
            return Err(Fault::new("the MPI library was built without threads")
                .expected("MPI_THREAD_FUNNELED")
                .found(format!("{threading:?}"))
                .environment());
        }
        let world = universe.world();
        let node = world.split_shared(world.rank());
        let mut mpi = Mpi {
            rank: world.rank() as usize,
            size: world.size() as usize,
            local_rank: node.rank() as usize,
            local_size: node.size() as usize,
            nodes: None,
            world,
            _universe: universe,
            monitor,
        };
        let sizes = mpi.gather_number(mpi.local_size);
        if mpi.local_size < mpi.size {
            let lanes = if sizes.iter().all(|size| *size == sizes[0]) { sizes[0] } else { 1 };
            let colour = mpi.local_rank.min(lanes) as c_int;
            let lane =
                mpi.world.split_by_color_with_key(Color::with_value(colour), mpi.world.rank());
            let way = mpi.requested_way();
            mpi.nodes = Some(Nodes {
                lane: lane.filter(|_| mpi.local_rank < lanes),
                fixed: way.is_some(),
                way: Cell::new(way),
                long_sums: Cell::new(0),
                node,
                lanes,
                scratch: RefCell::default(),
            });
        }
        Ok(mpi)
    }

    /// All ranks have met: what follows can take as long as it takes.
    pub(super) fn started(&self) {
        self.monitor.enter(Phase::Work);
    }

    /// Rank 0's answer, so that all have the same.
    fn requested_way(&self) -> Option<Way> {
        let asked = std::env::var(CHOICE).unwrap_or_default();
        let known = Way::ALL.iter().position(|(_, name)| *name == asked);
        let mut choice = known.map_or(0, |known| known as u64 + 1);
        self.world.process_at_rank(0).broadcast_into(&mut choice);
        Way::ALL.get((choice as usize).wrapping_sub(1)).map(|(way, _)| *way)
    }

    fn sum(&self, way: Way, values: &mut [i64]) -> Result<()> {
        match &self.nodes {
            Some(nodes) if way != Way::Flat => nodes.sum(way, values),
            _ => {
                let mine = InPlace { count: values.len() as c_int };
                self.world.all_reduce_into(&mine, values, SystemOperation::sum());
                Ok(())
            }
        }
    }

    /// Tries all ways on copies of these values; the one whose slowest rank is the fastest
    /// counts from now on.
    fn choose(&self, nodes: &Nodes, values: &[i64]) -> Result<Way> {
        let mut best = [u64::MAX; Way::ALL.len()];
        for trial in 0..=TRIALS {
            for ((way, _), best) in Way::ALL.iter().zip(&mut best) {
                let mut copy = values.to_vec();
                self.world.barrier();
                let since = Instant::now();
                self.sum(*way, &mut copy)?;
                let time = since.elapsed().as_nanos() as u64;
                // The first one opens connections.
                *best = if trial == 0 { u64::MAX } else { time.min(*best) };
            }
        }
        let mut slowest = best;
        self.world.all_reduce_into(&best[..], &mut slowest[..], SystemOperation::max());
        let fastest = (0..best.len()).min_by_key(|i| slowest[*i]).unwrap_or(0);
        let (way, name) = Way::ALL[fastest];
        if self.rank == 0 {
            let times: Vec<String> = Way::ALL
                .iter()
                .zip(slowest)
                .map(|((_, name), time)| format!("{name} {:.2} ms", time as f64 / 1e6))
                .collect();
            let bytes = pack(values, &mut Vec::new()) as f64 / values.len() as f64;
            log::info!(
                "sums of {} words over nodes: {name} ({}; {bytes:.2} bytes per word when packed)",
                values.len(),
                times.join(", ")
            );
        }
        nodes.way.set(Some(way));
        Ok(way)
    }

    /// Everyone's number, in rank order.
    fn gather_number(&self, mine: usize) -> Vec<usize> {
        let mut all = vec![0_u64; self.size];
        self.world.all_gather_into(&(mine as u64), &mut all[..]);
        all.into_iter().map(|number| number as usize).collect()
    }

    /// Appends to `all` everyone's next bytes; `counts[rank]` of them from each rank.
    fn gather_piece(&self, mine: &[u8], counts: &[c_int], all: &mut [Vec<u8>]) {
        let starts: Vec<c_int> = counts
            .iter()
            .scan(0, |end, count| Some(std::mem::replace(end, *end + count)))
            .collect();
        let mut received = vec![0_u8; counts.iter().map(|count| *count as usize).sum()];
        let mut parts = PartitionMut::new(&mut received[..], counts, &starts[..]);
        self.world.all_gather_varcount_into(mine, &mut parts);
        let mut rest = &received[..];
        for (bytes, count) in all.iter_mut().zip(counts) {
            let (piece, next) = rest.split_at(*count as usize);
            bytes.extend_from_slice(piece);
            rest = next;
        }
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        self.monitor.enter(Phase::End);
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }
    fn size(&self) -> usize {
        self.size
    }
    fn local_rank(&self) -> usize {
        self.local_rank
    }
    fn local_size(&self) -> usize {
        self.local_size
    }

    fn all_reduce_sum(&self, values: &mut [i64]) -> Result<()> {
        let way = match &self.nodes {
            Some(nodes) if values.len() >= LONG => {
                let sums = nodes.long_sums.replace(nodes.long_sums.get() + 1);
                match nodes.way.get() {
                    Some(way) if nodes.fixed || sums != AGAIN => way,
                    _ => self.choose(nodes, values)?,
                }
            }
            _ => Way::Flat,
        };
        values.chunks_mut(PIECE_BYTES / size_of::<i64>()).try_for_each(|piece| self.sum(way, piece))
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather_number(mine.len());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|n| Vec::with_capacity(*n)).collect();
        // All ranks' pieces together fill one message.
        let piece = (PIECE_BYTES / self.size).max(1);
        for start in (0..longest).step_by(piece) {
            let end = |length: usize| length.clamp(start, start + piece);
            let counts: Vec<c_int> = lengths.iter().map(|n| (end(*n) - start) as c_int).collect();
            let mine = mine.get(start..end(mine.len())).unwrap_or(&[]);
            self.gather_piece(mine, &counts, &mut all);
        }
        Ok(all)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let root = self.world.process_at_rank(0);
        let mut length = bytes.len() as u64;
        root.broadcast_into(&mut length);
        bytes.resize(length as usize, 0);
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            root.broadcast_into(piece);
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        self.world.barrier();
        Ok(())
    }

    fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        self.world.process_at_rank(to as c_int).send(bytes);
        Ok(())
    }

    fn receive(&self) -> Result<Option<(usize, Vec<u8>)>> {
        let found = self.world.any_process().immediate_matched_probe();
        Ok(found.map(|message| {
            let (bytes, status) = message.matched_receive_vec();
            (status.source_rank() as usize, bytes)
        }))
    }

    fn abort(&self, exit_code: u8) -> ! {
        abort(exit_code)
    }

    fn signs_watched(&self, watched: bool) {
        self.monitor.enter(if watched { Phase::Watched } else { Phase::Work });
    }

    fn aborter(&self) -> Option<fn(u8) -> !> {
        Some(abort)
    }
}

impl Nodes {
    /// Adds over the node, over the lane, and hands the sums out within the node.
    fn sum(&self, way: Way, values: &mut [i64]) -> Result<()> {
        let SumScratch { whole, share, signed, buffers } = &mut *self.scratch.borrow_mut();
        let words = values.len().div_ceil(self.lanes);
        let split = self.lanes == self.node.size() as usize;
        // Summed as unsigned words, see `InPlace`.
        whole.clear();
        whole.extend(values.iter().map(|value| *value as u64));
        whole.resize(words * self.lanes, 0);
        share.resize(words, 0);
        let leader = self.node.process_at_rank(0);
        if split {
            self.node.reduce_scatter_block_into(&whole[..], &mut share[..], SystemOperation::sum());
        } else if self.node.rank() == 0 {
            leader.reduce_into_root(&whole[..], &mut share[..], SystemOperation::sum());
        } else {
            leader.reduce_into(&whole[..], SystemOperation::sum());
        }
        match &self.lane {
            Some(lane) if way == Way::Packed => {
                signed.clear();
                signed.extend(share.iter().map(|word| *word as i64));
                lanes::all_reduce(&Lane(lane), signed, buffers)?;
                share.iter_mut().zip(signed).for_each(|(word, value)| *word = *value as u64);
            }
            Some(lane) => {
                let mine = InPlace { count: words as c_int };
                lane.all_reduce_into(&mine, &mut share[..], SystemOperation::sum());
            }
            None => {}
        }
        if split {
            self.node.all_gather_into(&share[..], &mut whole[..]);
        } else {
            leader.broadcast_into(&mut share[..]);
            whole.copy_from_slice(share);
        }
        values.iter_mut().zip(whole).for_each(|(value, word)| *value = *word as i64);
        Ok(())
    }
}

/// The ranks with one place on their nodes.
struct Lane<'a>(&'a SimpleCommunicator);

impl PairExchange for Lane<'_> {
    fn rank(&self) -> usize {
        self.0.rank() as usize
    }
    fn size(&self) -> usize {
        self.0.size() as usize
    }
    fn exchange(&self, with: usize, bytes: &[u8], received: &mut [u8]) -> usize {
        let other = self.0.process_at_rank(with as c_int);
        let status = send_receive_into(bytes, &other, received, &other);
        status.count(u8::equivalent_datatype()).max(0) as usize
    }
}

fn abort(exit_code: u8) -> ! {
    SimpleCommunicator::world().abort(c_int::from(exit_code))
}

/// What the library calls itself; it may be asked before it is initialised.
pub(super) fn library_version() -> String {
    mpi::environment::library_version().unwrap_or_default()
}

/// From now on a panic on any thread is told and then ends all ranks with exit code
/// 1, also where somebody would have caught it; but for those that become errors.
pub(super) fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        let alive = mpi::environment::is_initialized() && !mpi::environment::is_finalized();
        if alive && !panics::is_guarded() {
            let text = panic.payload().downcast_ref::<String>();
            abort(if text.is_some_and(|text| memory::is_lack_of_threads(text)) { 5 } else { 1 });
        }
    }));
}

/// `MPI_IN_PLACE` as a send buffer: the summands stand in the receive buffer, which
/// must have `count` words of 64 bits.
struct InPlace {
    count: c_int,
}

// SAFETY: the words are summed as unsigned, which wraps where a signed overflow would
// be undefined in C; two's complement makes it the same sum.
unsafe impl AsDatatype for InPlace {
    type Out = <u64 as Equivalence>::Out;
    fn as_datatype(&self) -> Self::Out {
        u64::equivalent_datatype()
    }
}

// SAFETY: the only caller gives the length of the receive buffer.
unsafe impl Collection for InPlace {
    fn count(&self) -> c_int {
        self.count
    }
}

// SAFETY: MPI never follows this pointer; it compares it and reads the receive buffer.
unsafe impl Pointer for InPlace {
    fn pointer(&self) -> *const c_void {
        taiga_flow_in_place()
    }
}

// SAFETY: pointer, count and datatype describe what an in-place reduction wants.
unsafe impl Buffer for InPlace {}
