package database

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"

	"github.com/sparecores/benchmark-llm/bench/report"
	"github.com/sparecores/benchmark-llm/bench/result"
)

// Is tells whether the first bytes of a file are those of a SQLite database.
func Is(head []byte) bool { return strings.HasPrefix(string(head), "SQLite format 3\x00") }

// HeadBytes is how many bytes Is needs.
const HeadBytes = 16

// A Run holds records that were measured together.
type Run struct {
	Name    string // empty if llama-bench wrote them
	Records []result.Record
}

// Read reads the runs of a database with the table llama_bench, in the order in which
// they were added. Rows of llama-bench name no run: those of one build and machine are one
// run, until a test comes again. The file is not changed, but for a record that a killed
// program has half written, which SQLite takes back. Errors name the row, from 1; they are
// report.ErrNotResults if there is no such table or if it lacks a column, and
// report.ErrNoRecords if it is empty. A database is bounded as a results file is.
func Read(path string) ([]Run, error) {
	runs, err := readAs(path, "ro")
	if e := (*sqlite.Error)(nil); errors.As(err, &e) && slices.Contains(unfinished, e.Code()) {
		return readAs(path, "rw")
	}
	return runs, err
}

// unfinished are the codes of a database that only a writer can read, because a writer was
// killed.
var unfinished = []int{sqlitelib.SQLITE_READONLY_ROLLBACK, sqlitelib.SQLITE_READONLY_RECOVERY}

func readAs(path, mode string) ([]Run, error) {
	db, err := sql.Open("sqlite", dsn(path, mode))
	if err != nil {
		return nil, err
	}
	defer db.Close()
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{ReadOnly: true}) // all queries see the same
	if err != nil {
		return nil, err
	}
	defer tx.Rollback() //nolint:errcheck // it only reads
	tables, err := tablesOf(tx)
	switch {
	case err != nil:
		return nil, err
	case !slices.Contains(tables, "llama_bench"):
		return nil, fmt.Errorf("no table llama_bench: %w", report.ErrNotResults)
	}
	there, err := columnsOf(tx, "llama_bench")
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"model_type", "n_prompt", "n_gen", "avg_ts"} {
		if !slices.Contains(there, name) {
			return nil, fmt.Errorf("table llama_bench has no column %s: %w", name, report.ErrNotResults)
		}
	}
	ours := slices.Contains(there, recordID) && slices.Contains(tables, "llama_bench_ext") && slices.Contains(tables, "llama_bench_samples")
	x, err := readExtensions(tx, ours)
	if err != nil {
		return nil, err
	}
	runs, err := readRows(tx, there, x)
	if err == nil && len(runs) == 0 {
		err = report.ErrNoRecords
	}
	return runs, err
}

// tablesOf are the names of the tables. A view is none: it may have rows without end.
func tablesOf(q querier) (names []string, err error) {
	return names, each(q, "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'", func(rows *sql.Rows) error {
		names = append(names, "")
		return rows.Scan(&names[len(names)-1])
	})
}

// extension is what this program adds to a row.
type extension struct {
	run string
	ext result.Ext
	ns  []int64
	ts  []float64
}

// readExtensions reads what is known of each record_id.
func readExtensions(q querier, ours bool) (map[int64]*extension, error) {
	if !ours {
		return nil, nil
	}
	all := map[int64]*extension{}
	err := each(q, "SELECT record_id, run, ext FROM llama_bench_ext", func(rows *sql.Rows) error {
		var id int64
		var text string
		x := new(extension)
		if err := rows.Scan(&id, &x.run, &text); err != nil {
			return err
		}
		switch all[id] = x; {
		case len(all) > report.MaxRecords:
			return report.ErrManyRecords
		case len(text) > report.MaxLineBytes:
			return fmt.Errorf("llama_bench_ext: record %d: longer than %d bytes", id, report.MaxLineBytes)
		}
		if err := json.Unmarshal([]byte(text), &x.ext); err != nil {
			return fmt.Errorf("llama_bench_ext: record %d: %w", id, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, each(q, "SELECT record_id, ns, ts FROM llama_bench_samples ORDER BY record_id, repetition", func(rows *sql.Rows) error {
		var id, ns int64
		var ts float64
		if err := rows.Scan(&id, &ns, &ts); err != nil {
			return err
		}
		if math.IsInf(ts, 0) {
			return fmt.Errorf("llama_bench_samples: record %d: %g is not a number", id, ts)
		}
		if x := all[id]; x != nil {
			x.ns, x.ts = append(x.ns, ns), append(x.ts, ts)
		}
		return nil
	})
}

// each calls do for every row of a query.
func each(q querier, query string, do func(*sql.Rows) error) error {
	rows, err := q.Query(query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := do(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readRows reads the table llama_bench.
func readRows(q querier, there []string, extensions map[int64]*extension) (runs []Run, err error) {
	var columns []report.Column
	var names []string
	for _, c := range report.Columns() {
		if slices.Contains(there, c.Name) {
			columns, names = append(columns, c), append(names, c.Name)
		}
	}
	id := "NULL"
	if extensions != nil {
		id = recordID
	}
	texts := make([]sql.NullString, len(columns))
	var record sql.NullInt64
	into := []any{&record}
	for i := range texts {
		into = append(into, &texts[i])
	}
	index := map[string]int{}           // of runs of this program, by name
	foreign := map[string]*foreignRun{} // of llama-bench, the latest of each build and machine
	number := 0
	err = each(q, "SELECT "+id+", "+strings.Join(names, ", ")+" FROM llama_bench ORDER BY rowid", func(rows *sql.Rows) error {
		if number++; number > report.MaxRecords {
			return report.ErrManyRecords
		}
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("row %d: %w", number, err)
		}
		var r result.Record
		for i, c := range columns {
			if !texts[i].Valid {
				continue
			}
			if err := c.Set(&r, texts[i].String); err != nil {
				return fmt.Errorf("row %d: %s: %w", number, c.Name, err)
			}
		}
		if err := r.Test().Validate(); err != nil {
			return fmt.Errorf("row %d: %w", number, err)
		}
		x := extensions[record.Int64]
		if !record.Valid || x == nil {
			place, key := fmt.Sprintf("%q", []string{r.BuildCommit, strconv.Itoa(r.BuildNumber), r.CPUInfo, r.GPUInfo, r.Backends}), rowKey(columns, texts)
			of := foreign[place]
			if of == nil || of.seen[key] {
				of = &foreignRun{len(runs), map[string]bool{}}
				foreign[place] = of
				runs = append(runs, Run{})
			}
			of.seen[key] = true
			runs[of.index].Records = append(runs[of.index].Records, r)
			return nil
		}
		r.Ext, r.SamplesNs, r.SamplesTS = x.ext, x.ns, x.ts
		i, known := index[x.run]
		if !known {
			i = len(runs)
			index[x.run] = i
			runs = append(runs, Run{Name: x.run})
		}
		runs[i].Records = append(runs[i].Records, r)
		return nil
	})
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return runs, err
}

// foreignRun is a run of llama-bench that is read.
type foreignRun struct {
	index int
	seen  map[string]bool // keys of its rows
}

// rowKey is what one run of llama-bench measures once: all of a row but the results.
func rowKey(columns []report.Column, texts []sql.NullString) string {
	var b strings.Builder
	for i, c := range columns {
		if c.Name == "test_time" {
			break // and the results behind it
		}
		fmt.Fprintf(&b, "%s\x00", texts[i].String)
	}
	return b.String()
}
