// What package llama takes from the headers of libllama and ggml, with the sizes, offsets, types and values of
// llama 0.7.0 and ggml 0.27.0. scripts/check-headers compiles and links this file; it runs nothing. A line that fails
// names what changed: read it up in the headers, adapt the binding, then this file.
//
// The layouts are those of LP64, the same on amd64 and arm64. The structures are listed whole, because the library
// fills and reads them whole.

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml-rpc.h>
#include <llama.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SAME(type, other) __builtin_types_compatible_p(type, other)

// A field of a structure: its offset in bytes and its type.
#define FIELD(structure, field, offset, ...)                                                                           \
	_Static_assert(offsetof(structure, field) == (offset), #structure "." #field ": its offset changed");              \
	_Static_assert(SAME(__typeof__(((structure *)0)->field), __VA_ARGS__), #structure "." #field ": its type changed");
#define SIZE(structure, size) _Static_assert(sizeof(structure) == (size), #structure ": its size changed");

#define CONSTANT(name, value) _Static_assert((name) == (value), #name ": its value changed");
#define TYPE(name, ...) _Static_assert(SAME(name, __VA_ARGS__), #name ": its definition changed");

// A function: its prototype; FUNCTION also makes the linker find it, which PROTOTYPE cannot for what only a back-end
// module has.
#define PROTOTYPE(name, result, arguments)                                                                             \
	_Static_assert(SAME(__typeof__(&name), result(*) arguments), #name ": its prototype changed");
#define FUNCTION(name, result, arguments)                                                                              \
	PROTOTYPE(name, result, arguments)                                                                                 \
	result(*const linked_##name) arguments = name;

FIELD(struct llama_model_params, devices, 0, ggml_backend_dev_t *)
FIELD(struct llama_model_params, tensor_buft_overrides, 8, const struct llama_model_tensor_buft_override *)
FIELD(struct llama_model_params, n_gpu_layers, 16, int32_t)
FIELD(struct llama_model_params, split_mode, 20, enum llama_split_mode)
FIELD(struct llama_model_params, load_mode, 24, enum llama_load_mode)
FIELD(struct llama_model_params, lazy_mode, 28, enum llama_lazy_mode)
FIELD(struct llama_model_params, main_gpu, 32, int32_t)
FIELD(struct llama_model_params, tensor_split, 40, const float *)
FIELD(struct llama_model_params, progress_callback, 48, llama_progress_callback)
FIELD(struct llama_model_params, progress_callback_user_data, 56, void *)
FIELD(struct llama_model_params, kv_overrides, 64, const struct llama_model_kv_override *)
FIELD(struct llama_model_params, vocab_only, 72, bool)
FIELD(struct llama_model_params, check_tensors, 73, bool)
FIELD(struct llama_model_params, use_extra_bufts, 74, bool)
FIELD(struct llama_model_params, no_host, 75, bool)
FIELD(struct llama_model_params, no_alloc, 76, bool)
FIELD(struct llama_model_params, load_mtp, 77, bool)
SIZE(struct llama_model_params, 80)

FIELD(struct llama_context_params, n_ctx, 0, uint32_t)
FIELD(struct llama_context_params, n_batch, 4, uint32_t)
FIELD(struct llama_context_params, n_ubatch, 8, uint32_t)
FIELD(struct llama_context_params, n_seq_max, 12, uint32_t)
FIELD(struct llama_context_params, n_rs_seq, 16, uint32_t)
FIELD(struct llama_context_params, n_outputs_max, 20, uint32_t)
FIELD(struct llama_context_params, n_outputs_max_per_seq, 24, uint32_t)
FIELD(struct llama_context_params, n_threads, 28, int32_t)
FIELD(struct llama_context_params, n_threads_batch, 32, int32_t)
FIELD(struct llama_context_params, ctx_type, 36, enum llama_context_type)
FIELD(struct llama_context_params, rope_scaling_type, 40, enum llama_rope_scaling_type)
FIELD(struct llama_context_params, pooling_type, 44, enum llama_pooling_type)
FIELD(struct llama_context_params, attention_type, 48, enum llama_attention_type)
FIELD(struct llama_context_params, flash_attn_type, 52, enum llama_flash_attn_type)
FIELD(struct llama_context_params, rope_freq_base, 56, float)
FIELD(struct llama_context_params, rope_freq_scale, 60, float)
FIELD(struct llama_context_params, yarn_ext_factor, 64, float)
FIELD(struct llama_context_params, yarn_attn_factor, 68, float)
FIELD(struct llama_context_params, yarn_beta_fast, 72, float)
FIELD(struct llama_context_params, yarn_beta_slow, 76, float)
FIELD(struct llama_context_params, yarn_orig_ctx, 80, uint32_t)
FIELD(struct llama_context_params, defrag_thold, 84, float)
FIELD(struct llama_context_params, cb_eval, 88, ggml_backend_sched_eval_callback)
FIELD(struct llama_context_params, cb_eval_user_data, 96, void *)
FIELD(struct llama_context_params, type_k, 104, enum ggml_type)
FIELD(struct llama_context_params, type_v, 108, enum ggml_type)
FIELD(struct llama_context_params, moe_cache_size, 112, size_t)
FIELD(struct llama_context_params, abort_callback, 120, ggml_abort_callback)
FIELD(struct llama_context_params, abort_callback_data, 128, void *)
FIELD(struct llama_context_params, embeddings, 136, bool)
FIELD(struct llama_context_params, offload_kqv, 137, bool)
FIELD(struct llama_context_params, no_perf, 138, bool)
FIELD(struct llama_context_params, op_offload, 139, bool)
FIELD(struct llama_context_params, swa_full, 140, bool)
FIELD(struct llama_context_params, kv_unified, 141, bool)
FIELD(struct llama_context_params, samplers, 144, struct llama_sampler_seq_config *)
FIELD(struct llama_context_params, n_samplers, 152, size_t)
FIELD(struct llama_context_params, ctx_other, 160, struct llama_context *)
SIZE(struct llama_context_params, 168)

FIELD(struct llama_batch, n_tokens, 0, int32_t)
FIELD(struct llama_batch, token, 8, llama_token *)
FIELD(struct llama_batch, embd, 16, float *)
FIELD(struct llama_batch, pos, 24, llama_pos *)
FIELD(struct llama_batch, n_seq_id, 32, int32_t *)
FIELD(struct llama_batch, seq_id, 40, llama_seq_id **)
FIELD(struct llama_batch, logits, 48, int8_t *)
SIZE(struct llama_batch, 56)

FIELD(struct ggml_threadpool_params, cpumask, 0, bool[512])
FIELD(struct ggml_threadpool_params, n_threads, 512, int)
FIELD(struct ggml_threadpool_params, prio, 516, enum ggml_sched_priority)
FIELD(struct ggml_threadpool_params, poll, 520, uint32_t)
FIELD(struct ggml_threadpool_params, strict_cpu, 524, bool)
FIELD(struct ggml_threadpool_params, paused, 525, bool)
SIZE(struct ggml_threadpool_params, 528)

FIELD(struct ggml_backend_dev_props, name, 0, const char *)
FIELD(struct ggml_backend_dev_props, description, 8, const char *)
FIELD(struct ggml_backend_dev_props, memory_free, 16, size_t)
FIELD(struct ggml_backend_dev_props, memory_total, 24, size_t)
FIELD(struct ggml_backend_dev_props, type, 32, enum ggml_backend_dev_type)
FIELD(struct ggml_backend_dev_props, device_id, 40, const char *)
FIELD(struct ggml_backend_dev_props, caps, 48, struct ggml_backend_dev_caps)
SIZE(struct ggml_backend_dev_props, 56)

TYPE(llama_token, int32_t)
TYPE(llama_pos, int32_t)
TYPE(llama_seq_id, int32_t)
TYPE(llama_progress_callback, bool (*)(float, void *))
TYPE(ggml_abort_callback, bool (*)(void *))
TYPE(ggml_log_callback, void (*)(enum ggml_log_level, const char *, void *))
TYPE(ggml_threadpool_t, struct ggml_threadpool *)

CONSTANT(LLAMA_LOAD_MODE_AUTO, -1)
CONSTANT(LLAMA_LOAD_MODE_NONE, 0)
CONSTANT(LLAMA_LOAD_MODE_MMAP, 1)
CONSTANT(LLAMA_LOAD_MODE_MLOCK, 2)
CONSTANT(LLAMA_LOAD_MODE_MMAP_MLOCK, 3)
CONSTANT(LLAMA_LOAD_MODE_DIRECT_IO, 4)

CONSTANT(LLAMA_LAZY_MODE_OFF, 0)
CONSTANT(LLAMA_LAZY_MODE_AUTO, 1)
CONSTANT(LLAMA_LAZY_MODE_ON, 2)

CONSTANT(LLAMA_SPLIT_MODE_NONE, 0)
CONSTANT(LLAMA_SPLIT_MODE_LAYER, 1)
CONSTANT(LLAMA_SPLIT_MODE_ROW, 2)
CONSTANT(LLAMA_SPLIT_MODE_TENSOR, 3)

CONSTANT(LLAMA_FLASH_ATTN_TYPE_AUTO, -1)
CONSTANT(LLAMA_FLASH_ATTN_TYPE_DISABLED, 0)
CONSTANT(LLAMA_FLASH_ATTN_TYPE_ENABLED, 1)

CONSTANT(LLAMA_VOCAB_TYPE_NONE, 0)

CONSTANT(LLAMA_PROCESS_TYPE_ENCODE, 0)
CONSTANT(LLAMA_PROCESS_TYPE_DECODE, 1)

CONSTANT(GGML_LOG_LEVEL_NONE, 0)
CONSTANT(GGML_LOG_LEVEL_DEBUG, 1)
CONSTANT(GGML_LOG_LEVEL_INFO, 2)
CONSTANT(GGML_LOG_LEVEL_WARN, 3)
CONSTANT(GGML_LOG_LEVEL_ERROR, 4)
CONSTANT(GGML_LOG_LEVEL_CONT, 5)

CONSTANT(GGML_SCHED_PRIO_LOW, -1)
CONSTANT(GGML_SCHED_PRIO_NORMAL, 0)
CONSTANT(GGML_SCHED_PRIO_MEDIUM, 1)
CONSTANT(GGML_SCHED_PRIO_HIGH, 2)
CONSTANT(GGML_SCHED_PRIO_REALTIME, 3)

CONSTANT(GGML_BACKEND_DEVICE_TYPE_CPU, 0)
CONSTANT(GGML_BACKEND_DEVICE_TYPE_GPU, 1)
CONSTANT(GGML_BACKEND_DEVICE_TYPE_IGPU, 2)
CONSTANT(GGML_BACKEND_DEVICE_TYPE_ACCEL, 3)
CONSTANT(GGML_BACKEND_DEVICE_TYPE_META, 4)

CONSTANT(GGML_TYPE_F32, 0)
CONSTANT(GGML_TYPE_F16, 1)
CONSTANT(GGML_TYPE_Q4_0, 2)
CONSTANT(GGML_TYPE_Q4_1, 3)
CONSTANT(GGML_TYPE_Q5_0, 6)
CONSTANT(GGML_TYPE_Q5_1, 7)
CONSTANT(GGML_TYPE_Q8_0, 8)
CONSTANT(GGML_TYPE_Q8_1, 9)
CONSTANT(GGML_TYPE_Q2_K, 10)
CONSTANT(GGML_TYPE_Q3_K, 11)
CONSTANT(GGML_TYPE_Q4_K, 12)
CONSTANT(GGML_TYPE_Q5_K, 13)
CONSTANT(GGML_TYPE_Q6_K, 14)
CONSTANT(GGML_TYPE_Q8_K, 15)
CONSTANT(GGML_TYPE_IQ2_XXS, 16)
CONSTANT(GGML_TYPE_IQ2_XS, 17)
CONSTANT(GGML_TYPE_IQ3_XXS, 18)
CONSTANT(GGML_TYPE_IQ1_S, 19)
CONSTANT(GGML_TYPE_IQ4_NL, 20)
CONSTANT(GGML_TYPE_IQ3_S, 21)
CONSTANT(GGML_TYPE_IQ2_S, 22)
CONSTANT(GGML_TYPE_IQ4_XS, 23)
CONSTANT(GGML_TYPE_I8, 24)
CONSTANT(GGML_TYPE_I16, 25)
CONSTANT(GGML_TYPE_I32, 26)
CONSTANT(GGML_TYPE_I64, 27)
CONSTANT(GGML_TYPE_F64, 28)
CONSTANT(GGML_TYPE_IQ1_M, 29)
CONSTANT(GGML_TYPE_BF16, 30)
CONSTANT(GGML_TYPE_TQ1_0, 34)
CONSTANT(GGML_TYPE_TQ2_0, 35)
CONSTANT(GGML_TYPE_MXFP4, 39)
CONSTANT(GGML_TYPE_NVFP4, 40)
CONSTANT(GGML_TYPE_Q1_0, 41)
CONSTANT(GGML_TYPE_Q2_0, 42)
CONSTANT(GGML_TYPE_COUNT, 43)

CONSTANT(GGML_MAX_N_THREADS, 512)

FUNCTION(llama_version, const char *, (void))
FUNCTION(llama_backend_init, void, (void))
FUNCTION(llama_log_set, void, (ggml_log_callback, void *))
FUNCTION(llama_max_devices, size_t, (void))
FUNCTION(llama_model_default_params, struct llama_model_params, (void))
FUNCTION(llama_model_load_from_file, struct llama_model *, (const char *, struct llama_model_params))
FUNCTION(llama_model_load_from_file_ptr, struct llama_model *, (FILE *, struct llama_model_params))
FUNCTION(llama_model_free, void, (struct llama_model *))

FUNCTION(llama_model_desc, int32_t, (const struct llama_model *, char *, size_t))
FUNCTION(llama_model_size, uint64_t, (const struct llama_model *))
FUNCTION(llama_model_n_params, uint64_t, (const struct llama_model *))
FUNCTION(llama_model_n_ctx_train, int32_t, (const struct llama_model *))
FUNCTION(llama_model_n_embd, int32_t, (const struct llama_model *))
FUNCTION(llama_model_n_layer, int32_t, (const struct llama_model *))
FUNCTION(llama_model_n_head, int32_t, (const struct llama_model *))
FUNCTION(llama_model_n_head_kv, int32_t, (const struct llama_model *))
FUNCTION(llama_model_ftype, enum llama_ftype, (const struct llama_model *))
FUNCTION(llama_ftype_name, const char *, (enum llama_ftype))
FUNCTION(llama_load_mode_name, const char *, (enum llama_load_mode))
FUNCTION(llama_model_has_encoder, bool, (const struct llama_model *))
FUNCTION(llama_model_has_decoder, bool, (const struct llama_model *))
FUNCTION(llama_model_is_recurrent, bool, (const struct llama_model *))

FUNCTION(llama_model_meta_count, int32_t, (const struct llama_model *))
FUNCTION(llama_model_meta_key_by_index, int32_t, (const struct llama_model *, int32_t, char *, size_t))
FUNCTION(llama_model_meta_val_str_by_index, int32_t, (const struct llama_model *, int32_t, char *, size_t))
FUNCTION(llama_model_get_vocab, const struct llama_vocab *, (const struct llama_model *))
FUNCTION(llama_vocab_n_tokens, int32_t, (const struct llama_vocab *))
FUNCTION(llama_vocab_bos, llama_token, (const struct llama_vocab *))
FUNCTION(llama_vocab_get_add_bos, bool, (const struct llama_vocab *))
PROTOTYPE(llama_vocab_type, enum llama_vocab_type, (const struct llama_vocab *))
FUNCTION(llama_tokenize, int32_t, (const struct llama_vocab *, const char *, int32_t, llama_token *, int32_t, bool, bool))
FUNCTION(llama_token_to_piece, int32_t, (const struct llama_vocab *, llama_token, char *, int32_t, int32_t, bool))

FUNCTION(llama_context_default_params, struct llama_context_params, (void))
FUNCTION(llama_init_from_model, struct llama_context *, (struct llama_model *, struct llama_context_params))
FUNCTION(llama_free, void, (struct llama_context *))
FUNCTION(llama_n_ctx, uint32_t, (const struct llama_context *))
FUNCTION(llama_n_batch, uint32_t, (const struct llama_context *))
FUNCTION(llama_attach_threadpool, void, (struct llama_context *, ggml_threadpool_t, ggml_threadpool_t))
FUNCTION(llama_detach_threadpool, void, (struct llama_context *))
FUNCTION(llama_set_abort_callback, void, (struct llama_context *, ggml_abort_callback, void *))

FUNCTION(llama_get_memory, llama_memory_t, (const struct llama_context *))
FUNCTION(llama_memory_clear, void, (llama_memory_t, bool))
FUNCTION(llama_memory_seq_pos_max, llama_pos, (llama_memory_t, llama_seq_id))
FUNCTION(llama_batch_get_one, struct llama_batch, (llama_token *, int32_t))
FUNCTION(llama_decode, int32_t, (struct llama_context *, struct llama_batch))
FUNCTION(llama_synchronize, void, (struct llama_context *))
FUNCTION(llama_get_logits_ith, float *, (struct llama_context *, int32_t))

FUNCTION(llama_batch_ext_init, struct llama_batch_ext *, (struct llama_context *))
FUNCTION(llama_batch_ext_free, void, (struct llama_batch_ext *))
FUNCTION(llama_batch_ext_clear, void, (struct llama_batch_ext *))
FUNCTION(llama_batch_ext_add_token, int32_t, (struct llama_batch_ext *, llama_seq_id, llama_token))
FUNCTION(llama_batch_ext_set_output_logits, bool, (struct llama_batch_ext *, int32_t, bool))
FUNCTION(llama_batch_ext_set_pos, bool, (struct llama_batch_ext *, int32_t, const llama_pos *))
FUNCTION(llama_process, int32_t, (struct llama_context *, enum llama_process_type, struct llama_batch_ext *))

FUNCTION(llama_state_seq_get_size, size_t, (struct llama_context *, llama_seq_id))
FUNCTION(llama_state_seq_get_data, size_t, (struct llama_context *, uint8_t *, size_t, llama_seq_id))
FUNCTION(llama_state_seq_set_data, size_t, (struct llama_context *, const uint8_t *, size_t, llama_seq_id))

FUNCTION(ggml_backend_load, ggml_backend_reg_t, (const char *))
FUNCTION(ggml_backend_load_all, void, (void))
FUNCTION(ggml_backend_load_all_from_path, void, (const char *))
FUNCTION(ggml_backend_reg_count, size_t, (void))
FUNCTION(ggml_backend_reg_get, ggml_backend_reg_t, (size_t))
FUNCTION(ggml_backend_reg_name, const char *, (ggml_backend_reg_t))
FUNCTION(ggml_backend_reg_get_proc_address, void *, (ggml_backend_reg_t, const char *))

FUNCTION(ggml_backend_dev_count, size_t, (void))
FUNCTION(ggml_backend_dev_get, ggml_backend_dev_t, (size_t))
FUNCTION(ggml_backend_dev_by_name, ggml_backend_dev_t, (const char *))
FUNCTION(ggml_backend_dev_by_type, ggml_backend_dev_t, (enum ggml_backend_dev_type))
FUNCTION(ggml_backend_dev_get_props, void, (ggml_backend_dev_t, struct ggml_backend_dev_props *))
FUNCTION(ggml_backend_dev_backend_reg, ggml_backend_reg_t, (ggml_backend_dev_t))
FUNCTION(ggml_backend_dev_buffer_type, ggml_backend_buffer_type_t, (ggml_backend_dev_t))
FUNCTION(ggml_backend_buft_alloc_buffer, ggml_backend_buffer_t, (ggml_backend_buffer_type_t, size_t))
FUNCTION(ggml_backend_buffer_free, void, (ggml_backend_buffer_t))
FUNCTION(ggml_backend_buft_name, const char *, (ggml_backend_buffer_type_t))

FUNCTION(ggml_type_name, const char *, (enum ggml_type))
FUNCTION(ggml_type_size, size_t, (enum ggml_type))
FUNCTION(ggml_blck_size, int64_t, (enum ggml_type))
FUNCTION(ggml_row_size, size_t, (enum ggml_type, int64_t))
FUNCTION(ggml_quantize_chunk, size_t, (enum ggml_type, const float *, void *, int64_t, int64_t, int64_t, const float *))
FUNCTION(ggml_quantize_requires_imatrix, bool, (enum ggml_type))
FUNCTION(ggml_threadpool_params_init, void, (struct ggml_threadpool_params *, int))

CONSTANT(RPC_PROTO_MAJOR_VERSION, 8)
CONSTANT(GGML_RPC_MAX_SERVERS, 16)
FUNCTION(ggml_backend_register, void, (ggml_backend_reg_t))
FUNCTION(ggml_backend_reg_by_name, ggml_backend_reg_t, (const char *))
PROTOTYPE(ggml_backend_rpc_add_server, ggml_backend_reg_t, (const char *))
PROTOTYPE(ggml_threadpool_new, struct ggml_threadpool *, (struct ggml_threadpool_params *))
PROTOTYPE(ggml_threadpool_free, void, (struct ggml_threadpool *))

int main(void) { return 0; }
