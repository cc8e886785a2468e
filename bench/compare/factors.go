package compare

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/sparecores/benchmark-llm/bench/result"
)

// A factor is something other than the model and the test that may change the speed. Its name is
// that of the record's field.
type factor struct {
	name  string
	group string
	value func(*result.Record) string
}

// Groups of factors, which --across takes as well as names.
const (
	groupMachine  = "machine"
	groupLibrary  = "library"
	groupSettings = "settings"
)

var factors = []factor{
	{"cpu_info", groupMachine, func(r *result.Record) string { return r.CPUInfo }},
	{"gpu_info", groupMachine, func(r *result.Record) string { return r.GPUInfo }},
	{"backends", groupMachine, func(r *result.Record) string { return r.Backends }},
	{"devices", groupMachine, func(r *result.Record) string { return r.Devices }},
	{"n_threads", groupMachine, func(r *result.Record) string { return strconv.Itoa(r.Threads) }},
	{"ext.cpu_variant", groupMachine, func(r *result.Record) string { return r.Ext.CPUVariant }},
	{"ext.library", groupLibrary, library},

	{"cpu_mask", groupSettings, func(r *result.Record) string { return r.CPUMask }},
	{"cpu_strict", groupSettings, func(r *result.Record) string { return strconv.FormatBool(r.CPUStrict) }},
	{"poll", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.Poll) }},
	{"n_batch", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.Batch) }},
	{"n_ubatch", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.UBatch) }},
	{"type_k", groupSettings, func(r *result.Record) string { return r.TypeK }},
	{"type_v", groupSettings, func(r *result.Record) string { return r.TypeV }},
	{"n_gpu_layers", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.GPULayers) }},
	{"n_cpu_moe", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.CPUMoE) }},
	{"split_mode", groupSettings, func(r *result.Record) string { return r.SplitMode }},
	{"main_gpu", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.MainGPU) }},
	{"no_kv_offload", groupSettings, func(r *result.Record) string { return strconv.FormatBool(r.NoKVOffload) }},
	{"flash_attn", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.FlashAttn) }},
	{"tensor_split", groupSettings, func(r *result.Record) string { return r.TensorSplit }},
	{"tensor_buft_overrides", groupSettings, func(r *result.Record) string { return r.TensorBuftOverrides }},
	{"load_mode", groupSettings, func(r *result.Record) string { return r.LoadMode }},
	{"lazy_mode", groupSettings, func(r *result.Record) string { return r.LazyMode }},
	{"embeddings", groupSettings, func(r *result.Record) string { return strconv.FormatBool(r.Embeddings) }},
	{"no_op_offload", groupSettings, func(r *result.Record) string { return strconv.Itoa(r.NoOpOffload) }},
	{"no_host", groupSettings, func(r *result.Record) string { return strconv.FormatBool(r.NoHost) }},
	{"repack", groupSettings, func(r *result.Record) string { return strconv.FormatBool(r.Repack) }},
}

// library names the library that measured a record. Every Debian build has the
// commit "Debian", so its package's version counts if it is known.
func library(r *result.Record) string {
	if v := r.Ext.Library["libllama0"]; v != "" {
		return "libllama0 " + v + ", ggml " + r.Ext.Library["libggml0"]
	}
	return fmt.Sprintf("%s (%d)", r.BuildCommit, r.BuildNumber)
}

// FactorNames lists what Options.Across may contain: groups, then names.
func FactorNames() []string {
	names := []string{groupMachine, groupLibrary, groupSettings}
	for _, f := range factors {
		names = append(names, f.name)
	}
	return names
}

// grouped names factors as FactorNames does: several of a group by the group.
func grouped(names []string) (short []string) {
	groups := map[string][]string{}
	var order []string
	for _, f := range factors {
		if slices.Contains(names, f.name) {
			if groups[f.group] == nil {
				order = append(order, f.group)
			}
			groups[f.group] = append(groups[f.group], f.name)
		}
	}
	for _, group := range order {
		if len(groups[group]) == 1 {
			short = append(short, groups[group][0])
		} else {
			short = append(short, group)
		}
	}
	return short
}

// compared tells whether a factor is what is compared.
func (f factor) compared(across []string) bool {
	return slices.Contains(across, f.name) || slices.Contains(across, f.group)
}
