#include "chat/reply.h"
#include <stdlib.h>
#include <string.h>
#include "base/status.h"
struct ts_reply { int x; };
ts_status ts_reply_open(ts_reply **out, const ts_chat *c, const char *prompt_text, size_t n_prompt_text, const ts_reply_options *opt, ts_error *err)
{ (void)c,(void)prompt_text,(void)n_prompt_text,(void)opt,(void)err; *out = calloc(1, sizeof **out); return *out?TS_OK:TS_NO_MEMORY; }
ts_status ts_reply_push(ts_reply *r, const char *text, size_t n, bool last, ts_reply_fn *fn, void *user, ts_error *err)
{ ts_reply_part p = {.kind=TS_REPLY_CONTENT,.text=text,.n=n}; (void)r,(void)last; return n?fn(user,&p,err):TS_OK; }
int64_t ts_reply_calls(const ts_reply *r) {(void)r; return 0;}
void ts_reply_close(ts_reply *r) {free(r);}
bool ts_reply_special(const ts_chat *c) {(void)c; return false;}
ts_status ts_reply_grammar(const ts_chat *c, const char *prompt_text, size_t n_prompt_text, const char *tools, size_t n_tools, const char *name, bool parallel, char **prefix, char **gbnf, ts_error *err)
{ (void)c,(void)prompt_text,(void)n_prompt_text,(void)tools,(void)n_tools,(void)name,(void)parallel,(void)prefix,(void)gbnf; return ts_fail(err, TS_UNSUPPORTED, "no"); }
