/* grammar.h - a grammar and the vocabulary it is applied to. */
#ifndef TS_GRAMMAR_H
#define TS_GRAMMAR_H

#include "grammar/match.h"

struct ts_grammar {
    ts_gram *gram;         /* owned               */
    const ts_vocab *vocab; /* of the engine, not owned */
};

#endif
