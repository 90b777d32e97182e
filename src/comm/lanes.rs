//! Sums of a vector over the nodes of a job, with one rank per node.
//!
//! Recursive halving and doubling (Rabenseifner 2004). Ranks exchange with ranks at distance P/2,
//! P/4, …; after log₂ P exchanges each has the sum of one P-th of the vector. The same number of
//! exchanges in reverse order gives all ranks the whole sum. Every rank sends and receives 2·(P −
//! 1)/P vectors, which is the minimum. Ranks beyond the largest power of two first send their
//! vector to a partner. Every message is packed (`packing`). The sums are of integers, so their
//! order changes no bit.

use super::packing::{largest, pack, unpack};
use crate::error::{Fault, Result};

/// Ranks that exchange bytes in pairs.
pub trait PairExchange {
    fn rank(&self) -> usize;
    fn size(&self) -> usize;
    /// Sends bytes to a rank and receives its bytes into the start of `received`; returns their
    /// number. Both ranks must call it.
    fn exchange(&self, with: usize, bytes: &[u8], received: &mut [u8]) -> usize;
}

/// Buffers that are reused from one sum to the next.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// Adds `values` over all ranks of `pairs`, in place, on every rank (wrapping).
pub(super) fn all_reduce(
    pairs: &impl PairExchange,
    values: &mut [i64],
    buffers: &mut Buffers,
) -> Result<()> {
    let (rank, size) = (pairs.rank(), pairs.size());
    let whole = 1 << size.ilog2();
    let mut exchange = |with: usize, values: &mut [i64], give, take, take_over: bool| {
        trade(pairs, with, values, give, take, take_over, buffers)
    };
    let all = 0..values.len();
    if rank >= whole {
        exchange(rank - whole, values, all.clone(), 0..0, false)?;
        return exchange(rank - whole, values, 0..0, all, true);
    }
    let extra = (rank + whole < size).then_some(rank + whole);
    if let Some(extra) = extra {
        exchange(extra, values, 0..0, all.clone(), false)?;
    }
    let (mut own, mut left) = (all.clone(), Vec::new());
    for distance in std::iter::successors(Some(whole / 2), |d| Some(d / 2)).take_while(|d| *d > 0) {
        let middle = own.start + own.len() / 2;
        let halves = [own.start..middle, middle..own.end];
        let upper = usize::from(rank & distance != 0);
        let [keep, give] = [halves[upper].clone(), halves[1 - upper].clone()];
        exchange(rank ^ distance, values, give.clone(), keep.clone(), false)?;
        left.push((distance, give));
        own = keep;
    }
    for (distance, missing) in left.into_iter().rev() {
        exchange(rank ^ distance, values, own.clone(), missing.clone(), true)?;
        own = own.start.min(missing.start)..own.end.max(missing.end);
    }
    match extra {
        Some(extra) => exchange(extra, values, all, 0..0, true),
        None => Ok(()),
    }
}

/// Sends one part of the vector and receives another one, which replaces the present values or is
/// added to them.
fn trade(
    pairs: &impl PairExchange,
    with: usize,
    values: &mut [i64],
    give: std::ops::Range<usize>,
    take: std::ops::Range<usize>,
    replaces: bool,
    buffers: &mut Buffers,
) -> Result<()> {
    let Buffers { sent, received } = buffers;
    let bytes = pack(&values[give], sent);
    if received.len() < largest(take.len()) {
        received.resize(largest(take.len()), 0);
    }
    let count = pairs.exchange(with, &sent[..bytes], received);
    let (target, received) = (&mut values[take], &received[..count.min(received.len())]);
    let whole = if replaces {
        unpack(received, target.len(), |i, value| target[i] = value)
    } else {
        unpack(received, target.len(), |i, value| target[i] = target[i].wrapping_add(value))
    };
    if whole {
        return Ok(());
    }
    Err(Fault::new("a part of a sum arrived damaged")
        .found(format!("{count} bytes from rank {with} of the lane"))
        .advice("check the network between the nodes, and run the same command again")
        .environment())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use taiga_flow_gpu::random::Stream;

    struct TestRanks {
        rank: usize,
        to: Vec<Sender<Vec<u8>>>,
        from: Vec<Receiver<Vec<u8>>>,
    }

    impl PairExchange for TestRanks {
        fn rank(&self) -> usize {
            self.rank
        }
        fn size(&self) -> usize {
            self.to.len()
        }
        fn exchange(&self, with: usize, bytes: &[u8], received: &mut [u8]) -> usize {
            self.to[with].send(bytes.to_vec()).unwrap();
            let message = self.from[with].recv().unwrap();
            received[..message.len()].copy_from_slice(&message);
            message.len()
        }
    }

    fn sums_of_all_ranks(size: usize, words: usize) -> Vec<Vec<i64>> {
        let (mut to, mut from): (Vec<Vec<_>>, Vec<Vec<_>>) =
            ((0..size).map(|_| Vec::new()).collect(), (0..size).map(|_| Vec::new()).collect());
        for sender in 0..size {
            for receiver in 0..size {
                let (s, r) = channel();
                to[sender].push(s);
                from[receiver].push((sender, r));
            }
        }
        let ranks = to.into_iter().zip(from).enumerate().map(|(rank, (to, mut from))| {
            from.sort_by_key(|(sender, _)| *sender);
            TestRanks { rank, to, from: from.into_iter().map(|(_, r)| r).collect() }
        });
        let ranks: Vec<TestRanks> = ranks.collect();
        std::thread::scope(|scope| {
            let run = |ranks: TestRanks| {
                let mut values = of_rank(ranks.rank, words);
                let mut buffers = Buffers::default();
                all_reduce(&ranks, &mut values, &mut buffers).unwrap();
                values
            };
            let threads: Vec<_> = ranks.into_iter().map(|r| scope.spawn(move || run(r))).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    /// Returns words of very different lengths, including ones that overflow.
    fn of_rank(rank: usize, words: usize) -> Vec<i64> {
        let stream = Stream::new(9, "lanes", &[rank as u64]);
        (0..words as u64)
            .map(|i| stream.bits(2 * i) as i64 >> (stream.bits(2 * i + 1) % 64))
            .collect()
    }

    #[test]
    fn every_rank_has_the_exact_sum_on_any_ranks() {
        for size in 1..=9 {
            for words in [0, 1, 2, 7, 64, 1001] {
                let mut expected = vec![0_i64; words];
                for rank in 0..size {
                    for (sum, value) in expected.iter_mut().zip(of_rank(rank, words)) {
                        *sum = sum.wrapping_add(value);
                    }
                }
                assert_eq!(
                    sums_of_all_ranks(size, words),
                    vec![expected; size],
                    "{size} ranks, {words} words"
                );
            }
        }
    }
}
