package commandline

import (
	"strings"
)

// Hub replaces llama-bench's flags of Hugging Face. A repository becomes a model, with its
// file if one is given for each. The token and offline mode become the hub's environment
// variables, which env has. The token is in no note. Files that do not belong to
// repositories stay, and are refused by their name.
func Hub(args []string) (ours []string, env map[string]string, notes []Note) {
	var repositories, files []string
	env = map[string]string{}
	first := -1 // where the first repository stood
	for i := 0; i < len(args); i++ {
		name, value, attached := strings.Cut(args[i], "=")
		if name == "--" {
			ours = append(ours, args[i:]...)
			break
		}
		if long, ok := Short[name]; ok {
			name = long
		}
		var list *[]string
		switch name {
		case "--hf-repo":
			list = &repositories
			if first < 0 {
				first = len(ours)
			}
		case "--hf-file":
			list = &files
		case "--hf-token":
		case "--offline":
			if attached {
				ours = append(ours, args[i])
				continue
			}
			env["HF_HUB_OFFLINE"] = "1"
			notes = append(notes, Note{args[i], "HF_HUB_OFFLINE=1"})
			continue
		default:
			ours = append(ours, args[i])
			continue
		}
		if !attached && i+1 < len(args) {
			i++
			value = args[i]
		}
		if list == nil {
			env["HF_TOKEN"] = value
			notes = append(notes, Note{"--hf-token", "HF_TOKEN"})
			continue
		}
		*list = append(*list, strings.Split(value, ",")...)
	}
	if len(repositories) == 0 || files != nil && len(repositories) != len(files) {
		for _, l := range []struct {
			flag   string
			values []string
		}{{"--hf-repo", repositories}, {"--hf-file", files}} {
			if l.values != nil {
				ours = append(ours, l.flag+"="+strings.Join(l.values, ","))
			}
		}
		return ours, env, notes
	}
	var models []string
	for i, r := range repositories {
		given, model := "--hf-repo "+r, "hf:"+r
		if files != nil {
			r, _, _ = strings.Cut(r, ":") // the file overrides the quantisation, as in llama-bench
			given, model = given+" --hf-file "+files[i], "hf:"+r+"/"+files[i]
		}
		models = append(models, "--model", model)
		notes = append(notes, Note{given, "--model " + model})
	}
	return append(ours[:first:first], append(models, ours[first:]...)...), env, notes
}
