//! Ranks as MPI processes: the only file that says `mpi::`.
//!
//! MPI's own error handling stays at `MPI_ERRORS_ARE_FATAL`: the Rust binding drops
//! return codes, and with a dead peer a wrong sum has come back as success. A rank
//! that unwinds or leaves by itself would wait in `MPI_Finalize` for ever, so
//! [`abort_on_panic`] and [`World::abort`] end all ranks. MPI counts in i32, so long
//! buffers travel in pieces. Only the main thread may call collectives; `abort`
//! works from any thread.

use std::os::raw::{c_int, c_void};

use mpi::collective::SystemOperation;
use mpi::datatype::{AsDatatype, Buffer, Collection, PartitionMut, Pointer};
use mpi::environment::{Threading, Universe};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Equivalence, Root};

use super::World;
use crate::error::{Fault, Result};
use taiga_flow_gpu::panics;

/// Bytes in one message: far below i32, and a bound on what the library buffers.
const PIECE_BYTES: usize = 64 << 20;

unsafe extern "C" {
    /// The value of the macro `MPI_IN_PLACE`.
    // Safe: `in_place.c` returns a constant of MPI's header and touches nothing.
    safe fn taiga_flow_in_place() -> *mut c_void;
}

/// This process as one of the ranks of `MPI_COMM_WORLD`.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    rank: usize,
    size: usize,
    local_rank: usize,
    local_size: usize,
    /// Its drop waits for all ranks in `MPI_Finalize`.
    _universe: Universe,
}

impl Mpi {
    /// Initialises MPI. Where that fails, MPI itself tells why and ends the process.
    pub(super) fn initialise() -> Result<Mpi> {
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
        Ok(Mpi {
            rank: world.rank() as usize,
            size: world.size() as usize,
            local_rank: node.rank() as usize,
            local_size: node.size() as usize,
            world,
            _universe: universe,
        })
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

impl World for Mpi {
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
        for piece in values.chunks_mut(PIECE_BYTES / size_of::<i64>()) {
            let mine = InPlace { count: piece.len() as c_int };
            self.world.all_reduce_into(&mine, piece, SystemOperation::sum());
        }
        Ok(())
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

    fn abort(&self, exit_code: u8) -> ! {
        abort(exit_code)
    }

    fn aborter(&self) -> Option<fn(u8) -> !> {
        Some(abort)
    }
}

fn abort(exit_code: u8) -> ! {
    SimpleCommunicator::world().abort(c_int::from(exit_code))
}

/// From now on a panic on any thread is told and then ends all ranks with exit code
/// 1, also where somebody would have caught it; but for those that become errors.
pub(super) fn abort_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tell(panic);
        let alive = mpi::environment::is_initialized() && !mpi::environment::is_finalized();
        if alive && !panics::is_guarded() {
            abort(1);
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
