-- How new the objects are that a table was brought in line with. An operator whose list is older, because it was paused
-- or its API server is behind, must not take back what another has declared since.

create table declared_sets (
    kind text not null,
    resource_version bigint not null,
    declared_at timestamptz not null default now(),
    constraint declared_sets_pkey primary key (kind),
    constraint declared_sets_kind_check check (kind in ('policies', 'workers'))
);

comment on table declared_sets is 'For each table that mirrors objects of the cluster as a whole, the version of the list it was last brought in line with.';
comment on column declared_sets.kind is 'policies (build_concurrency_policies) or workers (build_workers).';
comment on column declared_sets.resource_version is 'metadata.resourceVersion of that list: a number that grows, and the same for every operator of the cluster.';
comment on column declared_sets.declared_at is 'When a list of that version was last written.';
