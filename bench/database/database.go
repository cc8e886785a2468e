// Package database keeps records in a SQLite database: llama-bench's table llama_bench,
// with two columns more, and samples and extensions in tables of their own. Other
// programs, as compare-llama-bench.py, read that table.
//
//	llama_bench          llama-bench's columns, use_mmap, and record_id, which is NULL in
//	                     rows of llama-bench
//	llama_bench_ext      run, and the object ext as JSON, for each record_id
//	llama_bench_samples  ns and ts (tokens/s) of each repetition, for each record_id
//
// The driver is modernc.org/sqlite, SQLite translated to Go. mattn/go-sqlite3 is faster,
// but needs cgo, which this program keeps to the library.
package database

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"modernc.org/sqlite" // the driver "sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/sparecores/benchmark-llm/bench"
	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// ErrWrite is a database that records cannot be written to.
var ErrWrite = errors.New("--db")

// wait is how long a write waits for other programs that write to the database.
const wait = 10 * time.Second

// DB adds the records of one run to a database. Each record is a transaction, so a run
// that is killed keeps what it had, and several programs may write at the same time. The
// journal is SQLite's default, because WAL needs shared memory, which a network file
// system does not have. It consumes the outcomes of a run. A nil receiver keeps nothing.
// Errors are ErrWrite.
type DB struct {
	path, run string
	db        *sql.DB
	insert    string
	waiting   []result.Outcome // while others hold the lock
}

func failed(path string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", ErrWrite, path, err)
}

// Open opens or creates a database and its tables, and tries whether a record can be
// added; nil if path is empty. run is the name of the run: a record that the run has there
// is not added again.
func Open(path, run string) (*DB, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // as documented
	}
	db, err := sql.Open("sqlite", dsn(path, "rwc"))
	if err != nil {
		return nil, failed(path, err)
	}
	d := &DB{path: path, run: run, db: db}
	if err = d.transaction(d.create); err == nil {
		err = d.try()
	}
	if err != nil {
		_ = db.Close()
		return nil, failed(path, err)
	}
	return d, nil
}

// dsn is the driver's name of a file. Transactions take the lock at their beginning, so
// that they wait for it instead of failing at their first write. The path is absolute:
// SQLite takes :memory: for no file, and //x for a host.
func dsn(path, mode string) string {
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	u := url.URL{Scheme: "file", Path: path}
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}}
	q.Add("_pragma", fmt.Sprintf("busy_timeout(%d)", wait.Milliseconds()))
	q.Add("_pragma", "synchronous(full)")
	if mode == "ro" {
		q.Set("_txlock", "deferred")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func (d *DB) transaction(do func(*sql.Tx) error) error {
	tx, err := d.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // SQLite may have done so, as on a full disk
		return err
	}
	return tx.Commit()
}

// Names of columns and tables that llama-bench does not have.
const (
	recordID = "record_id"

	createExt = `CREATE TABLE IF NOT EXISTS llama_bench_ext (
  record_id INTEGER PRIMARY KEY,
  run TEXT NOT NULL,
  key TEXT NOT NULL,
  ext TEXT NOT NULL,
  UNIQUE (run, key)
)`
	createSamples = `CREATE TABLE IF NOT EXISTS llama_bench_samples (
  record_id INTEGER NOT NULL,
  repetition INTEGER NOT NULL,
  ns INTEGER NOT NULL,
  ts REAL NOT NULL,
  PRIMARY KEY (record_id, repetition)
) WITHOUT ROWID`
)

// create makes the tables, and adds to a table of llama-bench the columns that it lacks.
func (d *DB) create(tx *sql.Tx) error {
	var fields, names []string
	for _, c := range report.Columns() {
		fields = append(fields, c.Name+" "+c.Type())
		names = append(names, c.Name)
	}
	fields, names = append(fields, recordID+" INTEGER"), append(names, recordID)
	for _, statement := range []string{"CREATE TABLE IF NOT EXISTS llama_bench (\n  " + strings.Join(fields, ",\n  ") + "\n)", createExt, createSamples} {
		if _, err := tx.Exec(statement); err != nil {
			return err
		}
	}
	there, err := columnsOf(tx, "llama_bench")
	if err != nil {
		return err
	}
	for i, name := range names {
		if !slices.Contains(there, name) {
			if _, err := tx.Exec("ALTER TABLE llama_bench ADD COLUMN " + fields[i]); err != nil {
				return err
			}
		}
	}
	d.insert = fmt.Sprintf("INSERT INTO llama_bench (%s) VALUES (%s)", strings.Join(names, ", "), strings.TrimSuffix(strings.Repeat("?, ", len(names)), ", "))
	return nil
}

// try adds a record and takes it back: tables of another shape and a directory that takes
// no journal are found before the run.
func (d *DB) try() error {
	tx, err := d.db.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // the error of add is the cause
	return d.add(tx, &result.Record{SamplesNs: []int64{1}, SamplesTS: []float64{1}})
}

// querier is a database or a transaction.
type querier interface {
	Query(query string, args ...any) (*sql.Rows, error)
}

// columnsOf are the names of a table's columns; none: there is no such table.
func columnsOf(q querier, table string) (names []string, err error) {
	rows, err := q.Query("SELECT name FROM pragma_table_info(?)", table)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, rows.Err()
}

// Event does nothing: the database gets outcomes.
func (*DB) Event(bench.Stamped) error { return nil }

// Outcome adds a record. If others hold the database for longer than ten seconds, the
// record waits for the next one, or for Close.
func (d *DB) Outcome(o *result.Outcome) error {
	if d == nil || o.Record == nil || o.Status != result.OK {
		return nil
	}
	d.waiting = append(d.waiting, *o)
	err := d.flush()
	if busy := (*sqlite.Error)(nil); errors.As(err, &busy) && busy.Code()&0xff == sqlitelib.SQLITE_BUSY {
		return nil
	}
	return failed(d.path, err)
}

// flush writes the records that wait.
func (d *DB) flush() error {
	for len(d.waiting) > 0 {
		r := d.waiting[0].Record
		if err := d.transaction(func(tx *sql.Tx) error { return d.add(tx, r) }); err != nil {
			return err
		}
		d.waiting = d.waiting[1:]
	}
	return nil
}

func (d *DB) add(tx *sql.Tx, r *result.Record) error {
	ext, err := json.Marshal(r.Ext)
	if err != nil {
		return err
	}
	added, err := tx.Exec("INSERT OR IGNORE INTO llama_bench_ext (run, key, ext) VALUES (?, ?, ?)", d.run, key(r), string(ext))
	if err != nil {
		return err
	}
	if n, err := added.RowsAffected(); err != nil || n == 0 {
		return err // the run was resumed and has it already
	}
	id, err := added.LastInsertId()
	if err != nil {
		return err
	}
	var values []any
	for _, c := range report.Columns() {
		values = append(values, c.Value(r))
	}
	if _, err := tx.Exec(d.insert, append(values, id)...); err != nil {
		return err
	}
	for i, ns := range r.SamplesNs {
		if _, err := tx.Exec("INSERT INTO llama_bench_samples VALUES (?, ?, ?, ?)", id, i+1, ns, r.SamplesTS[i]); err != nil {
			return err
		}
	}
	return nil
}

// key is what a run has once: a test of a model, and what was measured.
func key(r *result.Record) string {
	h := sha256.New()
	fmt.Fprintln(h, r.ModelFilename, r.Test(), r.TestTime, r.SamplesNs)
	return hex.EncodeToString(h.Sum(nil))
}

// Close writes what waits and closes the database. It is idempotent.
func (d *DB) Close() error {
	if d == nil || d.db == nil {
		return nil
	}
	err := errors.Join(d.flush(), d.db.Close())
	d.db = nil
	return failed(d.path, err)
}
