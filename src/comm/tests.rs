use super::*;

/// Returns the sums of the same `terms` values, distributed over any number of ranks in turns.
fn summed_by(ranks: usize, terms: usize) -> Vec<[i64; 2]> {
    let value = |i: usize| (i as i64).wrapping_mul(0x7f4a_7c15_9e37_79b9);
    Threads::run(ranks, |comm| {
        let mut sum = [0_i64; 2];
        for i in (comm.rank()..terms).step_by(comm.size()) {
            sum = [sum[0].wrapping_add(value(i)), sum[1].wrapping_sub(value(i))];
        }
        comm.all_reduce_sum(&mut sum)?;
        Ok(sum)
    })
    .into_iter()
    .map(Result::unwrap)
    .collect()
}

#[test]
fn sums_are_equal_on_any_rank_and_rank_count() {
    let alone = summed_by(1, 1000)[0];
    for ranks in [2, 3, 8] {
        assert_eq!(summed_by(ranks, 1000), vec![alone; ranks]);
    }
}

#[test]
fn threads_with_one_rank_equals_single_rank() {
    fn tour(comm: &dyn Communicator) -> Result<[Vec<u8>; 3]> {
        let (mut sums, mut bytes) = (vec![3, -4], b"abc".to_vec());
        comm.all_reduce_sum(&mut sums)?;
        comm.broadcast(&mut bytes)?;
        comm.barrier()?;
        assert!(is_root(comm) && (comm.local_rank(), comm.local_size()) == (0, 1));
        let sums = sums.into_iter().flat_map(i64::to_ne_bytes).collect();
        Ok([sums, bytes, comm.all_gather(b"xyz")?.concat()])
    }
    let alone = tour(&SingleRank).unwrap();
    let threads = Threads::run(1, |comm| tour(comm)).pop().unwrap().unwrap();
    assert_eq!(alone, threads);
}

#[test]
fn sync_result_shares_failing_ranks_exit_code() {
    let outcomes = Threads::run(4, |comm| {
        let mine = if comm.rank() == 1 { Err(Fault::new("bad row").input()) } else { Ok(()) };
        sync_result(comm, mine)
    });
    for (rank, outcome) in outcomes.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert_eq!(error.to_string(), if rank == 1 { "bad row" } else { "rank 1: bad row" });
    }
}

#[test]
fn sync_result_without_failure_keeps_value() {
    let values = Threads::run(3, |comm| sync_result(comm, Ok(comm.rank())));
    assert_eq!(values.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn messages_keep_order_and_lost_rank_is_reported() {
    let outcomes = Threads::run(4, |comm| {
        let mut next = vec![0_u8; comm.size()];
        if comm.rank() > 0 {
            for number in 0..100 {
                comm.send(0, &[number, comm.rank() as u8])?;
            }
            return comm.barrier();
        }
        while next[1..].iter().any(|n| *n < 100) {
            if let Some((from, bytes)) = comm.receive()? {
                assert_eq!(bytes, [next[from], from as u8]);
                next[from] += 1;
            }
        }
        comm.barrier()
    });
    assert!(outcomes.iter().all(Result::is_ok));
    let outcomes = Threads::run(2, |comm| {
        if comm.rank() == 1 {
            return Err(Fault::new("the disk is full").environment());
        }
        loop {
            if comm.receive()?.is_some() {
                return Ok(());
            }
        }
    });
    let error = outcomes[0].as_ref().unwrap_err().to_string();
    assert!(error.contains("rank 1, which failed: the disk is full"), "{error}");
}

#[test]
fn gather_slots_moves_bits_unchanged() {
    let bits = [0x7ff0_0000_dead_beef, 0xfff8_0000_0000_0001, (-0.0_f64).to_bits(), 1];
    let gathered = Threads::run(3, |comm| {
        let slots: Vec<Option<f64>> = bits
            .iter()
            .enumerate()
            .map(|(slot, bits)| (slot % 3 == comm.rank()).then(|| f64::from_bits(*bits)))
            .chain([None])
            .collect();
        gather_slots(comm, &slots)
    });
    for values in gathered {
        let values: Vec<u64> = values.unwrap().into_iter().map(f64::to_bits).collect();
        assert_eq!(values[..4], bits);
        assert_eq!(values[4], 0);
    }
}
