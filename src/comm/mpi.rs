//! Ranks as MPI processes; the only file that uses the crate `mpi`.
//!
//! MPI's error handler remains `MPI_ERRORS_ARE_FATAL`. The Rust binding drops return codes, and
//! with a dead peer a wrong sum has been returned as success. A rank that unwinds or returns early
//! would wait in `MPI_Finalize` indefinitely, so [`abort_on_panic`] and [`Communicator::abort`] end
//! all ranks. MPI counts in i32, so long buffers are sent in pieces. Only the main thread may call
//! collectives; `abort` works from any thread.
//!
//! Long sums over several nodes use lanes. The ranks of a node first add up one share of the vector
//! each. Then the ranks with the same local rank add these shares over the nodes, and the ranks of
//! a node gather them. The network carries each sum once per node instead of once per rank. The
//! fastest method depends on the network, so the first long sum tries all of them; all give the
//! same bits.

#![allow(unsafe_code)] // MPI calls without a safe wrapper

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

/// Bytes of one message: far below the limit of i32, and a bound on the buffers of the library.
const PIECE_BYTES: usize = 64 << 20;

unsafe extern "C" {
    /// Returns the value of the macro `MPI_IN_PLACE`.
    // Safe: `in_place.c` returns a constant of MPI's header and has no side effect.
    safe fn taiga_flow_in_place() -> *mut c_void;
}

/// Number of words from which sums use lanes; shorter sums take too little time to matter.
const LONG: usize = 2048;

/// Timed trials of each method, after one that is not timed.
const TRIALS: usize = 4;

/// Number of long sums after which the methods are tried again: the gradients of a new flow are
/// mostly zeros, and pack better than all later ones.
const AGAIN: u64 = 200;

/// Variable that fixes the method: `flat`, `lanes` or `packed`.
const CHOICE: &str = "TAIGA_FLOW_REDUCTION";

/// Methods of long sums over several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SumMethod {
    /// One all-reduce of MPI over all ranks.
    Flat,
    /// A sum within each node, then an all-reduce of MPI per lane.
    Lanes,
    /// A sum within each node, then an all-reduce of packed words (`lanes`) per lane.
    Packed,
}

impl SumMethod {
    const ALL: [(SumMethod, &str); 3] =
        [(SumMethod::Flat, "flat"), (SumMethod::Lanes, "lanes"), (SumMethod::Packed, "packed")];
}

/// The ranks of this node and, on a rank with a lane, the ranks with the same local rank on the
/// other nodes. If nodes have different numbers of ranks, there is one lane, of the first rank of
/// each.
struct Nodes {
    node: SimpleCommunicator,
    lane: Option<SimpleCommunicator>,
    lanes: usize,
    method: Cell<Option<SumMethod>>,
    /// Whether the user fixed the method.
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
    /// `None` on a single node.
    nodes: Option<Nodes>,
    /// Its drop waits for all ranks in `MPI_Finalize`.
    _universe: Universe,
    /// Dropped after the universe, because it also monitors `MPI_Finalize`.
    monitor: ProcessMonitor,
}

impl Mpi {
    /// Initialises MPI. If that fails, MPI prints the reason and ends the process.
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
            let method = mpi.requested_method();
            mpi.nodes = Some(Nodes {
                lane: lane.filter(|_| mpi.local_rank < lanes),
                fixed: method.is_some(),
                method: Cell::new(method),
                long_sums: Cell::new(0),
                node,
                lanes,
                scratch: RefCell::default(),
            });
        }
        Ok(mpi)
    }

    /// Marks the end of the start: all ranks are connected, and later work has no time limit here.
    pub(super) fn started(&self) {
        self.monitor.enter(Phase::Work);
    }

    /// Returns the method that rank 0 reads from the environment, the same on all ranks.
    fn requested_method(&self) -> Option<SumMethod> {
        let asked = std::env::var(CHOICE).unwrap_or_default();
        let known = SumMethod::ALL.iter().position(|(_, name)| *name == asked);
        let mut choice = known.map_or(0, |known| known as u64 + 1);
        self.world.process_at_rank(0).broadcast_into(&mut choice);
        SumMethod::ALL.get((choice as usize).wrapping_sub(1)).map(|(method, _)| *method)
    }

    fn sum(&self, method: SumMethod, values: &mut [i64]) -> Result<()> {
        match &self.nodes {
            Some(nodes) if method != SumMethod::Flat => nodes.sum(method, values),
            _ => {
                let mine = InPlace { count: values.len() as c_int };
                self.world.all_reduce_into(&mine, values, SystemOperation::sum());
                Ok(())
            }
        }
    }

    /// Tries all methods on copies of these values, and keeps the one whose slowest rank is the
    /// fastest.
    fn choose(&self, nodes: &Nodes, values: &[i64]) -> Result<SumMethod> {
        let mut best = [u64::MAX; SumMethod::ALL.len()];
        for trial in 0..=TRIALS {
            for ((method, _), best) in SumMethod::ALL.iter().zip(&mut best) {
                let mut copy = values.to_vec();
                self.world.barrier();
                let since = Instant::now();
                self.sum(*method, &mut copy)?;
                let time = since.elapsed().as_nanos() as u64;
                // The first trial opens connections.
                *best = if trial == 0 { u64::MAX } else { time.min(*best) };
            }
        }
        let mut slowest = best;
        self.world.all_reduce_into(&best[..], &mut slowest[..], SystemOperation::max());
        let fastest = (0..best.len()).min_by_key(|i| slowest[*i]).unwrap_or(0);
        let (method, name) = SumMethod::ALL[fastest];
        if self.rank == 0 {
            let times: Vec<String> = SumMethod::ALL
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
        nodes.method.set(Some(method));
        Ok(method)
    }

    /// Returns the numbers of all ranks, in rank order.
    fn gather_number(&self, mine: usize) -> Vec<usize> {
        let mut all = vec![0_u64; self.size];
        self.world.all_gather_into(&(mine as u64), &mut all[..]);
        all.into_iter().map(|number| number as usize).collect()
    }

    /// Appends the next bytes of every rank to `all`, `counts[rank]` from each.
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
        let method = match &self.nodes {
            Some(nodes) if values.len() >= LONG => {
                let sums = nodes.long_sums.replace(nodes.long_sums.get() + 1);
                match nodes.method.get() {
                    Some(method) if nodes.fixed || sums != AGAIN => method,
                    _ => self.choose(nodes, values)?,
                }
            }
            _ => SumMethod::Flat,
        };
        values
            .chunks_mut(PIECE_BYTES / size_of::<i64>())
            .try_for_each(|piece| self.sum(method, piece))
    }

    fn all_gather(&self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather_number(mine.len());
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let mut all: Vec<Vec<u8>> = lengths.iter().map(|n| Vec::with_capacity(*n)).collect();
        // The pieces of all ranks together fill one message.
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

    fn heartbeats_watched(&self, watched: bool) {
        self.monitor.enter(if watched { Phase::Watched } else { Phase::Work });
    }

    fn aborter(&self) -> Option<fn(u8) -> !> {
        Some(abort)
    }
}

impl Nodes {
    /// Adds over the node, then over the lane, and distributes the sums within the node.
    fn sum(&self, method: SumMethod, values: &mut [i64]) -> Result<()> {
        let SumScratch { whole, share, signed, buffers } = &mut *self.scratch.borrow_mut();
        let words = values.len().div_ceil(self.lanes);
        let split = self.lanes == self.node.size() as usize;
        // The sum uses unsigned words, see `InPlace`.
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
            Some(lane) if method == SumMethod::Packed => {
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

/// The ranks with the same local rank on all nodes.
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

/// Returns the name and version of the MPI library; works before MPI is initialised.
pub(super) fn library_version() -> String {
    mpi::environment::library_version().unwrap_or_default()
}

/// Makes a panic on any thread print its message and end all ranks with exit code 1, even if the
/// panic would be caught. Panics that become errors are excepted.
pub(super) fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        let alive = mpi::environment::is_initialized() && !mpi::environment::is_finalized();
        if alive && !panics::is_guarded() {
            let text = panic.payload().downcast_ref::<String>();
            abort(if text.is_some_and(|text| memory::is_lack_of_threads(text)) { 5 } else { 1 });
        }
    }));
}

/// `MPI_IN_PLACE` as a send buffer: the summands are in the receive buffer, which must have `count`
/// words of 64 bits.
struct InPlace {
    count: c_int,
}

// SAFETY: the words are summed as unsigned, which wraps where a signed overflow would be undefined
// in C; in two's complement the sum is the same.
unsafe impl AsDatatype for InPlace {
    type Out = <u64 as Equivalence>::Out;
    fn as_datatype(&self) -> Self::Out {
        u64::equivalent_datatype()
    }
}

// SAFETY: the only caller passes the length of the receive buffer.
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

// SAFETY: pointer, count and datatype describe what an in-place reduction requires.
unsafe impl Buffer for InPlace {}
