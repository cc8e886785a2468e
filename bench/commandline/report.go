package commandline

// ReportHelp is the long help of report.
const ReportHelp = `Show the results of runs. A SOURCE is the directory of a run, a results file of this
program or of llama-bench (JSON lines, JSON or CSV), or last, last~1 and so on: the
most recent runs below --results-dir.

-o html is one page that needs no other file, no network and no script. Every run's
directory has one, report.html. Several sources are shown beside each other and are
compared, as compare --across machine,library does.`
