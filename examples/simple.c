/* simple.c - text from a model in one page: open, tokenize, evaluate, sample, print.
 *
 *     cc simple.c $(pkg-config --cflags --libs tessera) -o simple
 *     ./simple model.gguf "Once upon a time" 64
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tessera.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT [TOKENS]\n", argv[0]);
        return 2;
    }
    int n_gen = argc > 3 ? atoi(argv[3]) : 64;

    ts_error err = {0};
    ts_engine *engine = NULL;
    ts_session *session = NULL;
    ts_sampler *sampler = NULL;
    ts_token *prompt = NULL;
    size_t n_prompt = 0;

    ts_engine_options eo;
    ts_engine_options_init(&eo);
    ts_sampler_options so;
    ts_sampler_options_init(&so);
    so.seed = 42; /* the same seed gives the same text */

    ts_status st = ts_engine_open(&engine, argv[1], &eo, &err);
    if (st == TS_OK)
        st = ts_session_open(&session, engine, &err);
    if (st == TS_OK)
        st = ts_sampler_open(&sampler, &so, &err);
    if (st == TS_OK)
        st = ts_tokenize(engine, argv[2], strlen(argv[2]), TS_TOK_ADD_SPECIAL, &prompt, &n_prompt,
                         &err);
    if (st == TS_OK)
        st = ts_session_eval(session, prompt, n_prompt, 1, &err); /* prefill: one call */

    ts_engine_info info = {0};
    if (st == TS_OK)
        ts_engine_get_info(engine, &info);
    for (int i = 0; st == TS_OK && i < n_gen; i++) { /* decode: one token a step */
        ts_token next;
        st = ts_sampler_sample(sampler, ts_session_logits(session, 0), (size_t)info.n_vocab, &next,
                               &err);
        if (st != TS_OK || ts_token_is_eog(engine, next))
            break;
        ts_sampler_accept(sampler, next);
        const char *piece;
        size_t n = ts_token_piece(engine, next, false, &piece);
        fwrite(piece, 1, n, stdout);
        st = ts_session_eval(session, &next, 1, 1, &err);
    }
    putchar('\n');
    if (st != TS_OK)
        fprintf(stderr, "%s\n", err.msg);

    ts_free(prompt);
    ts_sampler_close(sampler);
    ts_session_close(session);
    ts_engine_close(engine);
    return st == TS_OK ? 0 : 1;
}
