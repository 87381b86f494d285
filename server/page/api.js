/* api.js - what the server is asked for, and what went wrong, in sentences.
 *
 * Paths are relative to the page, so it works behind a proxy that serves it under another path. The
 * API key stays in this tab's session storage. */
import { session } from './dom.js';

const KEY = 'tessera.key';

/* kind: 'gone' (no connection), 'broken' (it broke during an answer), 'key', 'busy', 'length' (longer
 * than the context), 'refused'. */
export class Failure extends Error {
    constructor(kind, sentence, wait = 0) {
        super(sentence);
        this.kind = kind;
        this.wait = wait; // seconds the server asks to wait
    }
}

let given = ''; // where the storage is refused, for as long as the page is there

export const key = {
    get: () => session.get(KEY) || given,
    set(value) {
        given = value;
        session.set(KEY, value || null);
    },
};

async function ask(path, options = {}) {
    const headers = { ...options.headers };
    if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
    let response;
    try {
        response = await fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit' });
    } catch (e) {
        if (e.name === 'AbortError') throw e;
        // A key that no header can hold, ü for one, isn't sent at all.
        if (headers.Authorization && !/^[\x21-\x7e ]*$/.test(headers.Authorization))
            throw new Failure('key', 'This API key has characters that no key can have.');
        throw new Failure('gone', 'The server can’t be reached. Is it still running?');
    }
    if (!response.ok) throw await failureOf(response);
    return response;
}

async function failureOf(response) {
    let said = null;
    try {
        said = (await response.json()).error;
    } catch {
        // not from our server, or cut off: the status alone tells
    }
    const sentence = typeof said?.message === 'string' ? ended(said.message) : '';
    const wait = Number.parseInt(response.headers.get('Retry-After') || '', 10);
    switch (response.status) {
    case 401:
    case 403:
        return new Failure('key', key.get() ? 'The server doesn’t accept this API key.'
            : 'The server wants an API key.');
    case 429:
        return new Failure('busy', `The server is busy. ${sentence}`.trim(), wait > 0 ? wait : 0);
    case 503:
        return new Failure('busy', `The server isn’t ready. ${sentence}`.trim(), wait > 0 ? wait : 0);
    case 400:
        if (/context/.test(`${said?.code} ${said?.type}`) || /context/i.test(sentence))
            return new Failure('length', `The conversation doesn’t fit the model’s context. ${sentence}`);
    }
    return new Failure('refused', sentence ? `The server refused this: ${sentence}`
        : `The server answered with status ${response.status}.`);
}

function ended(sentence) {
    const s = sentence.trim().slice(0, 1000);
    return s && !/[.!?]$/.test(s) ? `${s}.` : s;
}

export async function getJson(path) {
    const response = await ask(path);
    try {
        return await response.json();
    } catch {
        throw new Failure('refused', `What the server sent for /${path} isn’t JSON.`);
    }
}

/* Asks for an answer; on.delta(delta, finish) and on.usage(usage, timings) are called as it comes. Ends
 * when all came; throws a Failure, or an AbortError after signal. */
export async function chat(body, signal, on) {
    const response = await ask('v1/chat/completions', {
        method: 'POST', signal, body: JSON.stringify(body), headers: { 'Content-Type': 'application/json' },
    });
    const reader = response.body.getReader();
    try {
        await events(linesOf(reader), on);
    } finally {
        reader.cancel().catch(() => {}); // frees the server's slot if it was not at its end
    }
}

async function events(lines, on) {
    for (;;) {
        let next;
        try {
            next = await lines.next();
        } catch (e) {
            if (e.name === 'AbortError') throw e;
            next = { done: true };
        }
        if (next.done) throw new Failure('broken', 'The connection broke before the answer was complete.');
        if (!next.value.startsWith('data:')) continue; // between events, or a comment
        const data = next.value.slice(5).trim();
        if (data === '[DONE]') return;
        event(data, on);
    }
}

function event(data, on) {
    let chunk;
    try {
        chunk = JSON.parse(data);
    } catch {
        throw new Failure('broken', 'The server sent something that isn’t JSON.');
    }
    if (chunk.error) {
        const said = ended(String(chunk.error.message ?? ''));
        throw new Failure('broken', `The server ended the answer: ${said}`);
    }
    const choice = chunk.choices?.[0];
    if (choice) on.delta(choice.delta ?? {}, choice.finish_reason ?? null);
    if (chunk.usage || chunk.timings) on.usage(chunk.usage ?? null, chunk.timings ?? null);
}

async function* linesOf(reader) {
    const decoder = new TextDecoder();
    let parts = [];
    for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        const pieces = decoder.decode(value, { stream: true }).split('\n');
        for (let i = 0; i < pieces.length - 1; i++) {
            parts.push(pieces[i]);
            yield parts.join('').replace(/\r$/, '');
            parts = [];
        }
        parts.push(pieces.at(-1));
    }
}
