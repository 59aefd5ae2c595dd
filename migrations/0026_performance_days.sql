-- What build_performance_daily is computed from. A result that no day counts yet says so itself, in the transaction
-- that ends its build: no clock and no order of commits is trusted, and a build that commits late is counted late.

alter table build_results add column counted_at timestamptz;

comment on column build_results.counted_at is 'When build_performance_daily took the build into account. Null until then.';

-- What is not counted yet: where counted_at is null order by build_id limit $1.
create index build_results_to_count_idx on build_results (build_id) where counted_at is null;

-- The builds of a tenant that ended in a span of time: where tenant_id = $1 and completed_at >= $2 and completed_at < $3.
create index builds_ended_idx on builds (tenant_id, completed_at) where completed_at is not null;

-- The few that ran over a midnight (UTC), and so on days on which they did not end: the same, and this condition.
create index builds_over_midnight_idx on builds (tenant_id, completed_at)
where (started_at at time zone 'UTC')::date < (completed_at at time zone 'UTC')::date;

comment on table build_performance_daily is 'One row per tenant and day (UTC) on which a build of it ended or ran. Written within a minute, and again for a day that changed. Counts, times and failures are of the builds that ended on it.';
comment on column build_performance_daily.most_common_failure is 'The failure_reason most often met, the first of the alphabet among equals. Null where none failed.';
comment on column build_performance_daily.max_concurrent_at_peak is 'Most builds that ran at once at any moment of that day, from claim to end, whichever day they began or ended.';
