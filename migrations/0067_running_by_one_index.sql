-- What runs is counted by workers all together, from builds_running_idx: an index for each worker was one more entry to
-- write at every claim.
drop index builds_running_by_worker_idx;
