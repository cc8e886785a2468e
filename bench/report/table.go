package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
)

// TableOptions are the options of Table.
type TableOptions struct {
	Width      int      // of the terminal in columns; 0: no limit
	Right      []string // headings of the columns that are aligned to the right
	Expendable []string // headings of columns that a narrow terminal does without, the first one first
}

// Table is a table without lines, for people. Each row has as many cells as the header.
// If it is wider than the limit, expendable columns are left out, and a line below it
// names them. What remains may still be too wide.
func Table(header table.Row, rows []table.Row, o TableOptions) string {
	var gone []string
	rendered := render(header, rows, o.Right)
	for _, name := range o.Expendable {
		i := slices.Index(header, any(name))
		if i < 0 || o.Width <= 0 || text.LongestLineLen(rendered) <= o.Width {
			continue
		}
		without := func(r table.Row) table.Row { return slices.Concat(r[:i], r[i+1:]) }
		narrow := make([]table.Row, len(rows))
		for k, r := range rows {
			narrow[k] = without(r)
		}
		header, rows, gone = without(header), narrow, append(gone, name)
		rendered = render(header, rows, o.Right)
	}
	if len(gone) > 0 {
		rendered += fmt.Sprintf("\n(a wider terminal also shows: %s)", strings.Join(gone, ", "))
	}
	return rendered + "\n"
}

func render(header table.Row, rows []table.Row, right []string) string {
	t := table.NewWriter()
	s := table.StyleDefault
	s.Options = table.OptionsNoBordersAndSeparators
	s.Box.PaddingLeft, s.Box.PaddingRight = "", "  "
	s.Format.Header = text.FormatDefault
	t.SetStyle(s)
	t.SuppressTrailingSpaces()
	t.AppendHeader(header)
	t.AppendRows(rows)
	var columns []table.ColumnConfig
	for _, name := range right {
		columns = append(columns, table.ColumnConfig{Name: name, Align: text.AlignRight, AlignHeader: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	return t.Render()
}
