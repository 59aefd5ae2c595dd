-- Number of the last line stored of a build's log.
select line_number from build_logs where build_id = $1 order by line_number desc limit 1
