package report

import (
	"encoding/base64"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// misplaced lists the plots that are outside their figure or empty, texts of plots that
// are outside their plot, and a page wider than its window.
const misplaced = `(() => {
	const bad = [], inside = (a, b) => a.left >= b.left-1 && a.right <= b.right+1 && a.top >= b.top-1 && a.bottom <= b.bottom+1;
	document.querySelectorAll('svg').forEach((s, i) => {
		const box = s.getBoundingClientRect();
		if (box.width < 100 || box.height < 50 || !inside(box, s.closest('figure').getBoundingClientRect())) bad.push('plot ' + i);
		s.querySelectorAll('text').forEach(t => { if (!inside(t.getBoundingClientRect(), box)) bad.push('text in plot ' + i + ': ' + t.textContent) });
	});
	if (document.documentElement.scrollWidth > window.innerWidth) bad.push('the page is ' + document.documentElement.scrollWidth + ' pixels wide');
	return bad;
})()`

// inRow counts the plots in the first row of the first group that has several.
const inRow = `(() => {
	const several = [...document.querySelectorAll('.plots')].find(p => p.children.length > 1), top = several.children[0].getBoundingClientRect().top;
	return String([...several.children].filter(f => Math.abs(f.getBoundingClientRect().top - top) < 1).length);
})()`

// smallest is the scale of the plot that is drawn smallest.
const smallest = `(() => Math.min(...[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)).toFixed(2))()`

// TestBrowser shows the page of a whole suite in Chromium: without an error or a request,
// and with all plots in their places at every width, on paper and in the dark.
func TestBrowser(t *testing.T) {
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing: sudo apt-get install chromium")
	}
	var mu sync.Mutex
	var said []string
	listen := func(e any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := e.(type) {
		case *network.EventRequestWillBeSent:
			if !strings.HasPrefix(e.Request.URL, "data:") {
				said = append(said, "request of "+e.Request.URL)
			}
		case *log.EventEntryAdded:
			said = append(said, "log: "+e.Entry.Text)
		case *runtime.EventConsoleAPICalled:
			said = append(said, fmt.Sprintf("console: %v", e.Type))
		case *runtime.EventExceptionThrown:
			said = append(said, "exception: "+e.ExceptionDetails.Text)
		}
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox)...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithListener(listen))
	defer cancel()
	do := func(a chromedp.Action[chromedp.Void]) {
		t.Helper()
		if err := chromedp.Do(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	media := func(p emulation.SetEmulatedMediaParams) {
		t.Helper()
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, p); err != nil {
			t.Fatal(err)
		}
	}
	evaluated := func(script string) (text string) {
		t.Helper()
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	check := func(name string) {
		t.Helper()
		bad, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](misplaced))
		if err != nil || len(bad) > 0 {
			t.Errorf("%s: %q, %v", name, bad, err)
		}
	}

	do(chromedp.Navigate("data:text/html;base64," + base64.StdEncoding.EncodeToString([]byte(renderPage(t, suitePage())))))
	if n := evaluated(`String(document.querySelectorAll('svg').length)`); n != "12" {
		t.Errorf("%s plots", n)
	}
	for _, window := range []struct{ width, inRow int64 }{{400, 1}, {800, 1}, {899, 1}, {900, 2}, {1600, 2}} {
		do(chromedp.EmulateViewport(window.width, 900))
		check(fmt.Sprintf("%d pixels", window.width))
		if n := evaluated(inRow); n != fmt.Sprint(window.inRow) {
			t.Errorf("%d pixels: %s plots in a row, want %d", window.width, n, window.inRow)
		}
		if size := evaluated(smallest); window.width > 400 && size < "0.80" { // of 12 pixels
			t.Errorf("%d pixels: text of plots is scaled by %s", window.width, size)
		}
	}
	const background = `getComputedStyle(document.body).backgroundColor`
	light := evaluated(background)
	media(emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	if dark := evaluated(background); dark == light {
		t.Errorf("the background is %s in the dark too", dark)
	}
	media(emulation.SetEmulatedMediaParams{Media: "print"})
	do(chromedp.EmulateViewport(718, 1000)) // A4 without its margins
	check("print")
	pdf, err := chromedp.Run(ctx, chromedp.PrintToPDF(chromedp.PDFPaper(chromedp.PaperA4)))
	if err != nil || !strings.HasPrefix(string(pdf), "%PDF") {
		t.Errorf("PDF of %d bytes, %v", len(pdf), err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, s := range said {
		t.Error(s)
	}
}
