// How many no-op jobs a second River works through, with the settings of its own benchmark
// (https://riverqueue.com/docs/benchmarks): 2,000 workers, a fetch cool-down of 2 ms. All jobs are there before it
// starts. Prints jobs a second.
//
//	river DATABASE_URL JOBS
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

type nothing struct {
	Number int `json:"number"`
}

func (nothing) Kind() string { return "nothing" }

type worker struct {
	river.WorkerDefaults[nothing]
	left *atomic.Int64
	done chan struct{}
}

func (w *worker) Work(context.Context, *river.Job[nothing]) error {
	if w.left.Add(-1) == 0 {
		close(w.done)
	}
	return nil
}

const inserted = 5_000

func main() {
	ctx := context.Background()
	jobs, err := strconv.Atoi(os.Args[2])
	check(err)
	pool, err := pgxpool.New(ctx, os.Args[1])
	check(err)
	defer pool.Close()
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	check(err)
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	check(err)

	left := &atomic.Int64{}
	left.Store(int64(jobs))
	done := make(chan struct{})
	workers := river.NewWorkers()
	river.AddWorker(workers, &worker{left: left, done: done})
	client, err := river.NewClient(driver, &river.Config{
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 2_000}},
		Workers:           workers,
		FetchCooldown:     2 * time.Millisecond,
		FetchPollInterval: 2 * time.Millisecond,
	})
	check(err)
	for first := 0; first < jobs; first += inserted {
		batch := make([]river.InsertManyParams, 0, inserted)
		for number := first; number < min(first+inserted, jobs); number++ {
			batch = append(batch, river.InsertManyParams{Args: nothing{Number: number}})
		}
		_, err = client.InsertManyFast(ctx, batch)
		check(err)
	}
	_, err = pool.Exec(ctx, "vacuum analyze river_job")
	check(err)
	started := time.Now()
	check(client.Start(ctx))
	<-done
	// What was worked is completed in batches; stopping waits for the last.
	check(client.Stop(ctx))
	took := time.Since(started)
	var completed int
	check(pool.QueryRow(ctx, "select count(*) from river_job where state = 'completed'").Scan(&completed))
	if completed != jobs {
		log.Fatalf("%d of %d jobs are completed", completed, jobs)
	}
	fmt.Printf("%.0f\n", float64(jobs)/took.Seconds())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
