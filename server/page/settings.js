/* settings.js - the dialog of a conversation's settings, and the one that lists the keys. */

import { byId, element } from './dom.js';

/* Names as in the request; limits are those of docs/SERVER.md. What is empty isn't sent. */
const SAMPLING = [
    ['temperature', 'Temperature', { min: 0, max: 100, step: 'any' }, '0 always takes the best token'],
    ['top_p', 'Top-p', { min: 0, max: 1, step: 'any' }, 'the best tokens, up to this sum'],
    ['top_k', 'Top-k', { min: 0, step: 1 }, 'so many of the best tokens; 0: all'],
    ['min_p', 'Min-p', { min: 0, max: 1, step: 'any' }, 'at least this share of the best one'],
    ['max_tokens', 'Max tokens', { min: 1, step: 1 }, 'of an answer'],
    ['seed', 'Seed', { min: -1, step: 1 }, 'the same, the same answer; -1: any'],
    ['repeat_penalty', 'Repeat penalty', { min: 0.01, max: 100, step: 'any' }, '1: none'],
    ['frequency_penalty', 'Frequency penalty', { min: -2, max: 2, step: 'any' }, '0: none'],
    ['presence_penalty', 'Presence penalty', { min: -2, max: 2, step: 'any' }, '0: none'],
];

/* Where Option makes letters, as on a Mac, shortcuts want Ctrl with it. */
export const MAC = /^(Mac|iP)/.test(navigator.platform);
const keysHere = (keys) => MAC ? keys.replace('Alt+', 'Ctrl+Option+') : keys;

export const KEYS = [
    ['Enter', 'send'],
    ['Shift+Enter', 'a new line'],
    ['Esc', 'stop the answer; close what is open'],
    ['↑', 'in an empty message: edit the last one'],
    ['Alt+N', 'new chat'],
    ['Alt+L', 'conversations'],
    ['Alt+R', 'answer again'],
    ['Alt+U', 'edit your last message'],
    ['Alt+C', 'copy the last answer'],
    ['Alt+P', 'plan, and back'],
    ['Alt+S', 'system prompt and sampling'],
    ['Alt+I', 'to the message'],
    ['Alt+K', 'these shortcuts'],
];

export const noSettings = () => ({ system: '', tools: '', thinking: '', sampling: {} });

export class Settings {
    /* changed(settings) is called with every change that is valid. */
    constructor(changed) {
        this.changed = changed;
        this.dialog = byId('settings');
        this.inputs = new Map();
        byId('sampling').append(...SAMPLING.map((row) => this.field(...row)));
        for (const id of ['system', 'tools', 'thinking'])
            byId(id).addEventListener('input', () => this.read());
        byId('settings-reset').addEventListener('click', () => this.show(noSettings(), true));
        for (const [keys, what] of KEYS) {
            const dt = element('dt');
            keysHere(keys).split('+').forEach((k, i) => dt.append(i ? '+' : '', element('kbd', '', k)));
            byId('keys-list').append(element('div', '', dt, element('dd', '', what)));
        }
        for (const e of document.querySelectorAll('[title*="Alt+"]')) e.title = keysHere(e.title);
    }

    field(name, label, limits, hint) {
        const input = element('input');
        Object.assign(input,
            { type: 'number', id: `s-${name}`, inputMode: 'decimal', placeholder: 'server’s', ...limits });
        const title = element('label', '', label);
        title.htmlFor = input.id;
        const small = element('small', 'muted', hint);
        small.id = `h-${name}`;
        const wrong = element('small', 'wrong');
        wrong.id = `w-${name}`;
        wrong.setAttribute('role', 'alert');
        input.setAttribute('aria-describedby', `${small.id} ${wrong.id}`);
        input.addEventListener('input', () => this.read());
        this.inputs.set(name, { input, wrong });
        return element('div', 'field', title, input, small, wrong);
    }

    /* What the server takes where a field is empty, if it says so. */
    defaults(params) {
        for (const [name, { input }] of this.inputs) {
            const v = params?.[name];
            if (Number.isFinite(v) && v >= 0) input.placeholder = String(Number(v.toFixed(4)));
        }
    }

    open(settings) {
        this.show(settings, false);
        this.dialog.showModal();
    }

    show(settings, changed) {
        byId('system').value = settings.system;
        byId('tools').value = settings.tools;
        byId('thinking').value = settings.thinking;
        byId('tools-part').open = !!settings.tools;
        for (const [name, { input }] of this.inputs) input.value = settings.sampling[name] ?? '';
        this.read(changed);
    }

    /* What isn't valid is said and not taken. */
    read(tell = true) {
        const sampling = {};
        for (const [name, { input, wrong }] of this.inputs) {
            const ok = input.validity.valid;
            wrong.textContent = ok ? '' : input.validationMessage;
            input.setAttribute('aria-invalid', String(!ok));
            if (ok && input.value !== '') sampling[name] = input.valueAsNumber;
        }
        const tools = byId('tools').value.trim();
        const problem = tools ? toolsProblem(tools) : '';
        byId('tools-wrong').textContent = problem;
        byId('tools-wrong').hidden = !problem;
        if (!tell) return;
        this.changed({ system: byId('system').value, tools: problem ? '' : tools,
            thinking: byId('thinking').value, sampling });
    }
}

/* Why the text isn't a list of tools, or ''. */
export function toolsProblem(text) {
    try {
        return Array.isArray(JSON.parse(text)) ? '' : 'Tools are a list: [{"type": "function", …}].';
    } catch {
        return 'This isn’t JSON yet.';
    }
}
