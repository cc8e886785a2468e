package database

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

func outcome(test result.Test, samples ...int64) *result.Outcome {
	r := &result.Record{
		BuildCommit: "Debian", BuildNumber: 11669, CPUInfo: "A 'quoted' CPU", Backends: "CPU", ModelFilename: "=a.gguf", ModelType: "llama 7B Q4_K - Medium",
		ModelSizeBytes: 4080263168, Threads: 2, TypeK: "f16", FlashAttn: -1, Repack: true, UseMmap: true,
		PromptTokens: test.Prompt, GenTokens: test.Gen, DepthTokens: test.Depth, TestTime: "2026-11-23T15:19:41Z", AvgNs: 5, AvgTS: 267.3152817391, SamplesNs: samples,
	}
	for _, ns := range samples {
		r.SamplesTS = append(r.SamplesTS, 1e9/float64(ns)/3)
	}
	r.Ext.Seed = 7
	return &result.Outcome{Model: "a", Test: test, Status: result.OK, Record: r}
}

func open(t testing.TB, path, run string) *DB {
	t.Helper()
	d, err := Open(path, run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func add(t testing.TB, d *DB, outcomes ...*result.Outcome) {
	t.Helper()
	for _, o := range outcomes {
		if err := d.Outcome(o); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t testing.TB, path string) []Run {
	t.Helper()
	runs, err := Read(path)
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// What is written comes back. A resumed run adds only what it did not have.
func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b%#?.db")
	pp, tg := outcome(result.Test{Prompt: 16}, 3, 4), outcome(result.Test{Gen: 8, Depth: 32}, 5)
	first := open(t, path, "first")
	add(t, first, pp, &result.Outcome{Status: result.Timeout}, tg)
	add(t, open(t, path, "second"), pp)
	if err := errors.Join(first.Close(), first.Close()); err != nil {
		t.Fatal(err)
	}
	again := outcome(result.Test{Gen: 9}, 6)
	add(t, open(t, path, "first"), pp, tg, again)
	want := []Run{{"first", []result.Record{*pp.Record, *tg.Record, *again.Record}}, {"second", []result.Record{*pp.Record}}}
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The table of llama-bench, with its rows, gets what it lacks.
func TestTableOfLlamaBench(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	var script bytes.Buffer
	w, err := report.New("sql", &script, report.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pp, tg := outcome(result.Test{Prompt: 16}, 3), outcome(result.Test{Gen: 8}, 5)
	other := outcome(result.Test{Prompt: 16}, 3)
	other.Record.BuildCommit, other.Record.ModelFilename = "5b6c2a9", "'=b.gguf"
	for _, o := range []*result.Outcome{pp, other, tg, pp} { // the second is of another build, the fourth begins another run
		if err := w.Write(*o); err != nil {
			t.Fatal(err)
		}
	}
	execute(t, path, script.String())
	add(t, open(t, path, "ours"), pp)

	flat := func(o *result.Outcome) result.Record {
		r := *o.Record
		r.SamplesNs, r.SamplesTS, r.Ext, r.UseMmap = nil, nil, result.Ext{}, false
		r.AvgTS = 267.315282 // as llama-bench prints it
		return r
	}
	want := []Run{{"", []result.Record{flat(pp), flat(tg)}}, {"", []result.Record{flat(other)}}, {"", []result.Record{flat(pp)}}, {"ours", []result.Record{*pp.Record}}}
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func execute(t testing.TB, path, script string) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(path, "rwc"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
}

// Several programs write at the same time, and a reader never sees a part of a record.
func TestSeveralWriters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	const writers, records = 4, 12
	var all sync.WaitGroup
	for i := range writers {
		d := open(t, path, fmt.Sprint(i))
		all.Go(func() {
			for n := range records {
				if err := d.Outcome(outcome(result.Test{Prompt: n + 1}, 3, 4)); err != nil {
					t.Error(err)
				}
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		runs, err := Read(path)
		if err != nil && !errors.Is(err, report.ErrNoRecords) {
			t.Fatal(err)
		}
		for _, run := range runs {
			for _, r := range run.Records {
				if run.Name == "" || len(r.SamplesNs) != 2 {
					t.Errorf("part of a record: %q, %v", run.Name, r.SamplesNs)
				}
			}
		}
	}
	if runs := read(t, path); len(runs) != writers || len(runs[0].Records) != records {
		t.Errorf("%d runs", len(runs))
	}
}

// A record that finds the database locked waits for the next one.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := open(t, path, "x")
	other := open(t, path, "other")
	tx, err := other.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.db.Exec("PRAGMA busy_timeout(1)"); err != nil {
		t.Fatal(err)
	}
	add(t, d, outcome(result.Test{Prompt: 1}, 3))
	if len(d.waiting) != 1 {
		t.Errorf("%d records wait, want 1", len(d.waiting))
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if n := len(read(t, path)[0].Records); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{text, dir, filepath.Join(dir, "missing", "x.db")} {
		d, err := Open(path, "x")
		if !errors.Is(err, ErrWrite) || d != nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
	shape := filepath.Join(dir, "shape") // the tables are there, but take no record
	execute(t, shape, "CREATE TABLE llama_bench_samples (record_id INTEGER)")
	journal := filepath.Join(dir, "journal") // its directory takes no journal
	if err := errors.Join(open(t, journal, "x").Close(), os.Mkdir(journal+"-journal", 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{shape, journal} {
		if d, err := Open(path, "x"); !errors.Is(err, ErrWrite) || d != nil {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
	if d, err := Open("", "x"); d != nil || err != nil {
		t.Errorf("%v, %v", d, err)
	}
}

func TestReadErrors(t *testing.T) {
	const ours = "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL, record_id INTEGER);" + createExt + ";" + createSamples + ";"
	const numbers = "CREATE TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i <= 100000) SELECT i FROM n;"
	dir := t.TempDir()
	for _, tt := range []struct{ name, script, want string }{
		{"empty", "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL)", "no records"},
		{"other", "CREATE TABLE x (y TEXT)", "no table llama_bench: not results of this program or of llama-bench"},
		{"lacking", "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER)", "table llama_bench has no column avg_ts: not results of this program or of llama-bench"},
		{"type", "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL); INSERT INTO llama_bench VALUES ('a', 1, 0, 2.5), ('a', 'many', 0, 2)", `row 2: n_prompt: "many" is not a whole number`},
		{"infinite", "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL); INSERT INTO llama_bench VALUES ('a', 1, 0, 9e999)", `row 1: avg_ts: "+Inf" is not a number`},
		{"view", "CREATE VIEW llama_bench AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT 'a' model_type, i n_prompt, 0 n_gen, 1.0 avg_ts FROM n", "no table llama_bench: "},
		{"many", ours + numbers + "INSERT INTO llama_bench SELECT 'a', i, 0, 1, i FROM n", "more than 100000 records"},
		{"many ext", ours + numbers + "INSERT INTO llama_bench_ext SELECT i, 'x', i, '{}' FROM n", "more than 100000 records"},
		{"long ext", ours + "INSERT INTO llama_bench_ext VALUES (7, 'x', 'k', printf('%2000000s', ''))", "llama_bench_ext: record 7: longer than 1048576 bytes"},
		{"bad ext", ours + "INSERT INTO llama_bench_ext VALUES (7, 'x', 'k', '{\"seed\": \"a\"}')", "llama_bench_ext: record 7: "},
		{"infinite sample", ours + "INSERT INTO llama_bench_samples VALUES (7, 1, 1, 9e999)", "llama_bench_samples: record 7: +Inf is not a number"},
		{"no test", "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL); INSERT INTO llama_bench VALUES ('a', NULL, 0, 1)", "row 1: "},
	} {
		path := filepath.Join(dir, tt.name)
		execute(t, path, tt.script)
		if _, err := Read(path); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	cut := filepath.Join(dir, "cut")
	add(t, open(t, cut, "x"), outcome(result.Test{Prompt: 1}, 3))
	whole, err := os.ReadFile(cut)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cut, whole[:5000], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(cut); err == nil || !strings.Contains(err.Error(), "malformed") {
		t.Errorf("cut: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("there is a file")
	} else if _, err := Read(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there was read")
	} else if _, err := os.Stat(filepath.Join(dir, "none")); err == nil {
		t.Error("reading made a file")
	}
}

// A database whose tables of samples and ext were left out is read as llama-bench's.
func TestReadWithoutExt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	execute(t, path, "CREATE TABLE llama_bench (model_type TEXT, n_prompt INTEGER, n_gen INTEGER, avg_ts REAL, record_id INTEGER); INSERT INTO llama_bench VALUES ('a', 4, 0, 2.5, 1)")
	want := []Run{{"", []result.Record{{ModelType: "a", PromptTokens: 4, AvgTS: 2.5}}}}
	if diff := cmp.Diff(want, read(t, path)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A program that is killed while it writes leaves a journal. A reader takes back what was
// half written.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	live, killed := filepath.Join(dir, "live.db"), filepath.Join(dir, "killed.db")
	d := open(t, live, "x")
	pp := outcome(result.Test{Prompt: 16}, 3)
	add(t, d, pp)
	d.db.SetMaxOpenConns(1)
	// Pages are written to the file before the end of a transaction.
	for _, pragma := range []string{"PRAGMA cache_size = 1", "PRAGMA cache_spill = 1"} {
		if _, err := d.db.Exec(pragma); err != nil {
			t.Fatal(err)
		}
	}
	tx, err := d.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	for n := range 200 {
		if err := d.add(tx, outcome(result.Test{Prompt: n + 17}, 3).Record); err != nil {
			t.Fatal(err)
		}
	}
	for _, end := range []string{"", "-journal"} {
		b, err := os.ReadFile(live + end)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(killed+end, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if _, err := readAs(killed, "ro"); err == nil {
		t.Error("there was nothing to take back")
	}
	if diff := cmp.Diff([]Run{{"x", []result.Record{*pp.Record}}}, read(t, killed)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Names that mean something else to SQLite are those of files here.
func TestNamesOfFiles(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, path := range []string{":memory:", "/" + dir + "/x.db", "file:y.db?mode=memory"} {
		d := open(t, path, "x")
		add(t, d, outcome(result.Test{Prompt: 16}, 3))
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		if n := len(read(t, path)[0].Records); n != 1 {
			t.Errorf("%s: %d records, want 1", path, n)
		}
	}
}

// If the disk is full, the record is lost and the database keeps what it had.
func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d := open(t, path, "x")
	pp := outcome(result.Test{Prompt: 16}, 3)
	add(t, d, pp)
	d.db.SetMaxOpenConns(1)
	if _, err := d.db.Exec("PRAGMA max_page_count = 1"); err != nil { // means: no page more
		t.Fatal(err)
	}
	var err error
	for n := 0; n < 1000 && err == nil; n++ {
		err = d.Outcome(outcome(result.Test{Gen: n + 1}, 3))
	}
	if want := "--db: " + path + ": database or disk is full (13)"; !errors.Is(err, ErrWrite) || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := d.Close(); !errors.Is(err, ErrWrite) {
		t.Error(err)
	}
	if runs := read(t, path); len(runs) != 1 || cmp.Diff(*pp.Record, runs[0].Records[0]) != "" {
		t.Errorf("%d runs", len(runs))
	}
}

// What compare-llama-bench.py asks of the table.
func TestCompareLlamaBench(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	add(t, open(t, path, "x"), outcome(result.Test{Prompt: 16}, 3))
	db, err := sql.Open("sqlite", dsn(path, "ro"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	types := map[string]string{}
	if err := each(db, "SELECT name, type FROM pragma_table_info('llama_bench')", func(rows *sql.Rows) error {
		var name, kind string
		defer func() { types[name] = kind }()
		return rows.Scan(&name, &kind)
	}); err != nil {
		t.Fatal(err)
	}
	for kind, names := range map[string]string{
		"TEXT":    "build_commit cpu_info gpu_info backends tensor_buft_overrides model_filename model_type cpu_mask type_k type_v split_mode tensor_split test_time",
		"INTEGER": "n_gpu_layers n_batch n_ubatch embeddings cpu_strict poll n_threads use_mmap no_kv_offload main_gpu flash_attn n_prompt n_gen n_depth build_number model_size model_n_params",
		"REAL":    "avg_ts stddev_ts",
	} {
		for _, name := range strings.Fields(names) {
			if types[name] != kind {
				t.Errorf("%s is %q, want %s", name, types[name], kind)
			}
		}
	}
	var commit, mmap string
	if err := db.QueryRow("SELECT build_commit, use_mmap FROM llama_bench").Scan(&commit, &mmap); err != nil || commit != "Debian" || mmap != "1" {
		t.Errorf("%q, %q, %v", commit, mmap, err)
	}
}

// No bytes end the program, and none are read as records that are no tests.
func FuzzRead(f *testing.F) {
	path := filepath.Join(f.TempDir(), "seed.db")
	d := open(f, path, "x")
	add(f, d, outcome(result.Test{Prompt: 16}, 3, 4), outcome(result.Test{Gen: 8}, 5))
	if err := d.Close(); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed, 0, byte(0))
	f.Add(seed, 100, byte(255))
	f.Fuzz(func(t *testing.T, data []byte, at int, value byte) {
		if at >= 0 && at < len(data) {
			data = bytes.Clone(data)
			data[at] = value
		}
		path := filepath.Join(t.TempDir(), "x.db")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		runs, err := Read(path)
		if err != nil {
			return
		}
		for _, run := range runs {
			for _, r := range run.Records {
				if err := r.Test().Validate(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
