// Command picture draws real commands as SVGs: it starts benchmark-llm in a
// terminal (tmux), types the command as a person would, and draws what the
// terminal shows at the end, with its colours.
//
//	picture [-columns N] [-o FILE ARGUMENT...]
//
// ARGUMENTs are those of benchmark-llm. Without any, it draws the pictures of README.md.
// It needs tmux and bin/benchmark-llm.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// picture is a command and the file of its picture.
type picture struct {
	file      string
	arguments []string
}

// pictures are those of README.md. Any machine completes them within two minutes, without
// a model file.
var pictures = []picture{
	{"scripts/picture/quick.svg", []string{"quick"}},
	{"scripts/picture/run.svg", []string{"run", "-m", "SmolLM-135M.Q4_K_M.gguf", "--weights", "synthetic", "-p", "128", "-n", "32"}},
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("picture: ")
	columns := flag.Int("columns", 130, "`width` of the terminal in columns")
	out := flag.String("o", "", "`file` to write")
	program := flag.String("program", "bin/benchmark-llm", "`file` of the program to run")
	limit := flag.Duration("limit", 5*time.Minute, "longest `time` of a command")
	flag.Parse()
	if (flag.NArg() > 0) != (*out != "") {
		log.Fatal("give a file and arguments, or neither")
	}
	drawn := pictures
	if flag.NArg() > 0 {
		drawn = []picture{{*out, flag.Args()}}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for _, p := range drawn {
		if err := p.draw(ctx, *program, *columns, *limit); err != nil {
			log.Fatal(err)
		}
	}
}

// draw runs the program on a terminal and writes its picture.
func (p picture) draw(ctx context.Context, program string, columns int, limit time.Duration) error {
	screen, err := record(ctx, program, p.arguments, columns, limit)
	if err != nil {
		return err
	}
	title := "A terminal with " + strings.Join(append([]string{"benchmark-llm"}, p.arguments...), " ")
	return os.WriteFile(p.file, []byte(svg(parse(screen), title, columns)), 0o644)
}

// record is what the terminal shows after the run, with escape sequences of
// colours only.
func record(ctx context.Context, program string, arguments []string, columns int, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if _, err := exec.LookPath("tmux"); err != nil {
		return "", fmt.Errorf("%w (sudo apt-get install tmux)", err)
	}
	program, err := filepath.Abs(program)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(program); err != nil {
		return "", fmt.Errorf("%w (make build)", err)
	}
	dir, err := os.MkdirTemp("", "picture-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// The home directory is one named "~" in the working directory. So the picture
	// shows the run's directory as most people know theirs, and no path of this
	// machine.
	if err := os.Mkdir(filepath.Join(dir, "~"), 0o755); err != nil {
		return "", err
	}
	if err := os.Symlink(program, filepath.Join(dir, "benchmark-llm")); err != nil {
		return "", err
	}

	tmux := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", filepath.Join(dir, "tmux"), "-f", os.DevNull}, args...)...)
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "TMUX") })
		output, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("tmux %s: %w: %s", args[0], err, strings.TrimSpace(string(output)))
		}
		return string(output), nil
	}
	shell := fmt.Sprintf("cd %q && exec env -i HOME='~' PATH=%q:/usr/bin:/bin TERM=screen-256color LANG=C.UTF-8 PS1='$ ' bash --norc --noprofile", dir, dir)
	if _, err := tmux("new-session", "-d", "-x", strconv.Itoa(columns), "-y", "50", shell); err != nil {
		return "", err
	}
	defer func() {
		ctx = context.WithoutCancel(ctx)
		_, _ = tmux("kill-server")
	}()
	// prompt waits until the shell's prompt stands alone on the last line.
	prompt := func() error {
		for {
			select {
			case <-ctx.Done():
				return errors.Join(errors.New("the terminal shows no prompt"), ctx.Err())
			case <-time.After(200 * time.Millisecond):
			}
			plain, err := tmux("capture-pane", "-p")
			if err != nil {
				return err
			}
			plain = strings.TrimRight(plain, "\n ")
			if plain[strings.LastIndexByte(plain, '\n')+1:] == "$" {
				return nil
			}
		}
	}
	if err := prompt(); err != nil {
		return "", err
	}
	typed := strings.Join(append([]string{"benchmark-llm"}, arguments...), " ")
	for _, step := range [][]string{{"send-keys", "-l", typed}, {"send-keys", "Enter"}} {
		if _, err := tmux(step...); err != nil {
			return "", err
		}
	}
	if err := prompt(); err != nil {
		return "", err
	}
	screen, err := tmux("capture-pane", "-p", "-e")
	if err != nil {
		return "", err
	}
	screen = strings.TrimRight(screen, "\n ")
	return screen[:strings.LastIndexByte(screen, '\n')], nil // without the last prompt
}
