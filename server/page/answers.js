/* answers.js - the answers that come in: one at a time for a conversation, several conversations at once.
 *
 * A job is {talk, m, stop, ...}: m is the message that grows, stop ends it. What comes is kept (store.js)
 * once a second. */

import * as api from './api.js';
import { toolsProblem } from './settings.js';

const SAVE_EVERY = 1000; // ms
const MAX_CALLS = 128;   // of tools in an answer

export class Answers {
    /* save(talk, messages, quietly) keeps it; on.began(job), on.changed(job) when there is more to see,
     * on.ended(job). */
    constructor(save, on) {
        this.jobs = new Map(); // id of a conversation -> job
        this.save = save;
        this.on = on;
    }

    of(talk) {
        return this.jobs.get(talk.meta.id);
    }

    /* Asks for an answer to message number parent, into message m if there is one. */
    async ask(talk, parent, m, model) {
        if (this.of(talk)) return;
        m ??= talk.add(parent, 'assistant', '');
        if (model) m.model = model;
        const now = performance.now();
        const job = { talk, m, stop: new AbortController(), pieces: 0, first: 0, began: now, saved: now };
        this.jobs.set(talk.meta.id, job);
        this.on.began(job);
        // Kept from the start: if the page goes away now, it says later that the answer was cut off.
        const kept = this.save(talk, [m]);
        const tick = setInterval(() => this.on.changed(job), 1000);
        try {
            const { settings } = talk.meta;
            if (toolsProblem(settings.tools || '[]')) settings.tools = '';
            await api.chat(talk.request(parent), job.stop.signal, {
                delta: (d, finish) => this.grow(job, d, finish),
                usage: (usage, timings) => measure(m, usage, timings),
            });
            m.finish ??= 'stop';
        } catch (e) {
            failed(m, e);
        }
        clearInterval(tick);
        byTheClock(job);
        await kept;
        job.over = true;
        if (this.of(talk) === job) this.jobs.delete(talk.meta.id);
        this.save(talk, [m]);
        this.on.ended(job);
    }

    /* Whether there was one to stop. */
    stop(talk) {
        const job = this.of(talk);
        job?.stop.abort();
        return !!job;
    }

    grow(job, d, finish) {
        const { m } = job;
        const now = performance.now();
        if (typeof d.reasoning_content === 'string' && d.reasoning_content) {
            m.reasoning = (m.reasoning ?? '') + d.reasoning_content;
            job.thinks ??= now;
            m.reasoning_ms = now - job.thinks;
        }
        if (typeof d.content === 'string') m.content += d.content;
        for (const part of Array.isArray(d.tool_calls) ? d.tool_calls : []) growCall(m, part);
        if (finish) m.finish = finish;
        if (d.content || d.reasoning_content || d.tool_calls) {
            job.pieces++;
            job.first ||= now;
        }
        this.on.changed(job);
        if (now - job.saved < SAVE_EVERY) return;
        job.saved = now;
        this.save(job.talk, [m], true);
    }
}

function growCall(m, part) {
    const i = Number.isInteger(part.index) && part.index >= 0 ? Math.min(part.index, MAX_CALLS - 1) : 0;
    m.tool_calls ??= [];
    while (m.tool_calls.length <= i)
        m.tool_calls.push({ id: '', type: 'function', function: { name: '', arguments: '' } });
    const call = m.tool_calls[i];
    if (part.id) call.id = String(part.id);
    call.function.name += part.function?.name ?? '';
    call.function.arguments += part.function?.arguments ?? '';
}

function measure(m, usage, timings) {
    m.speeds = { ...m.speeds, ...timings };
    if (!usage) return;
    m.speeds.predicted_n ??= usage.completion_tokens;
    m.speeds.prompt_n ??= usage.prompt_tokens;
    m.speeds.total = usage.total_tokens;
}

/* The speed of an answer that was stopped or broke. */
function byTheClock({ m, pieces, first }) {
    if (m.speeds?.predicted_n || pieces < 2) return;
    m.speeds = { ...m.speeds, predicted_n: pieces, predicted_ms: performance.now() - first };
}

function failed(m, e) {
    if (e.name === 'AbortError') {
        m.finish = 'stopped';
        return;
    }
    const known = e instanceof api.Failure;
    if (!known) console.error(e);
    m.finish = 'error';
    m.error = known ? e.message : `The page made a mistake: ${e.message}`;
    m.kind = known ? e.kind : 'page';
    if (e.wait) m.until = Date.now() + 1000 * e.wait;
}
