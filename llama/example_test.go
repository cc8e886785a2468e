//go:build cgo

package llama_test

import (
	"fmt"

	"github.com/sparecores/benchmark-llm/llama"
)

// tell prints a text and what the model in a file makes of it.
func tell(path, text string) error {
	if err := llama.LoadBackends(llama.AllBackends); err != nil {
		return err
	}
	model, err := llama.LoadModel(path, llama.ModelParams{GPULayers: -1}, nil)
	if err != nil {
		return err
	}
	defer model.Close()
	ctx, err := model.NewContext(llama.ContextParams{Context: 2048})
	if err != nil {
		return err
	}
	defer ctx.Close()
	prompt, err := model.Tokenize(text, true, false)
	if err != nil {
		return err
	}
	fmt.Print(text)
	for piece, err := range ctx.Generate(nil, prompt, 8) {
		if err != nil {
			return err
		}
		fmt.Print(piece)
	}
	return nil
}

// The model of this example has random weights: it repeats its last word.
func Example() {
	thread := llama.StartThread() // every call is made on this thread
	defer thread.Stop()
	thread.Do(func() {
		if err := tell(tinyFile(), "Once upon a time"); err != nil {
			fmt.Println(err)
		}
	})
	// Output: Once upon a time time time time time time time time time
}
