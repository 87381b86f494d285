/* reply_plain.c - in the place of grammars of calls, which aren't there yet. */
#include "base/status.h"
#include "chat/reply.h"

ts_status ts_reply_grammar(const ts_chat *c, const char *prompt_text, size_t n_prompt_text,
                           const char *tools, size_t n_tools, const char *name, bool parallel,
                           char **prefix, char **gbnf, ts_error *err)
{
    (void)c, (void)prompt_text, (void)n_prompt_text, (void)tools, (void)n_tools, (void)name;
    (void)parallel, (void)prefix, (void)gbnf;
    return ts_fail(err, TS_UNSUPPORTED, "a call can't be required yet");
}
