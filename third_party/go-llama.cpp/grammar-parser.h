// Grammars of 2023 with today's samplers. The text is kept and parsed when the first token is sampled, because only then
// is the vocabulary known. An invalid grammar makes the prediction fail at that point.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <llama.h>

inline namespace october2023 {

// The module passes this from the parser to llama_grammar_init without reading it.
struct llama_grammar_element {
	std::string text;
};

struct llama_grammar {
	std::string text;
	sampler_ptr sampler; // made at the first token
};

inline llama_grammar *llama_grammar_init(const llama_grammar_element **rules, size_t, size_t) {
	return new llama_grammar{rules[0]->text, nullptr};
}

inline void llama_grammar_free(llama_grammar *grammar) { delete grammar; }

inline llama_grammar *llama_grammar_copy(const llama_grammar *grammar) {
	return new llama_grammar{grammar->text, sampler_ptr(grammar->sampler ? libllama::llama_sampler_clone(grammar->sampler.get()) : nullptr)};
}

// Keeps only candidates that continue the grammar. Returns false if the grammar cannot be parsed.
inline bool llama_sample_grammar(llama_context *ctx, llama_token_data_array *candidates, llama_grammar *grammar) {
	if (grammar->sampler == nullptr) {
		grammar->sampler.reset(libllama::llama_sampler_init_grammar(ctx->vocab, grammar->text.c_str(), "root"));
		if (grammar->sampler == nullptr) return fail(ctx, "the grammar cannot be read");
	}
	libllama::llama_sampler_apply(grammar->sampler.get(), candidates);
	return true;
}

inline void llama_grammar_accept_token(llama_context *, llama_grammar *grammar, llama_token id) {
	libllama::llama_sampler_accept(grammar->sampler.get(), id);
}

namespace grammar_parser {

struct parse_state {
	std::vector<llama_grammar_element> rules; // one: the text
	std::map<std::string, uint32_t>    symbol_ids;

	std::vector<const llama_grammar_element *> c_rules() const { return {&rules[0]}; }
};

inline parse_state parse(const char *text) { return {{{text}}, {{"root", 0}}}; }

inline void print_grammar(FILE *to, const parse_state &state) { fprintf(to, "%s", state.rules[0].text.c_str()); }

} // namespace grammar_parser

} // namespace october2023
