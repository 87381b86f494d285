/* app.js - what happens on the page: conversations, answers, views, keys.
 *
 * A conversation may wait for one answer at a time; several conversations may at once, and each goes
 * on when another one is shown. What is said is kept as it comes (store.js): at once what the user
 * says, once a second what the model does. The part of the address behind # says what is shown:
 * #c=ID, #plan, or nothing for a new chat. */

import * as api from './api.js';
import { Chat, fit } from './chat.js';
import { button, byId, count, element, plural } from './dom.js';
import { showPlan } from './plan.js';
import { MAC, Settings, noSettings, toolsProblem } from './settings.js';
import { newConversation, openStore } from './store.js';
import { Talk, titleOf } from './talk.js';

const SAVE_EVERY = 1000; // ms
const HEARD = 12;        // blocks that wait for a screen reader

let store;
let list = [];          // conversations, the newest first
let talk;               // what is shown
let turns = 0;          // how often another one was
let server = {};        // {model, context}
const jobs = new Map(); // id of a conversation -> the answer that comes in
const tabs = 'BroadcastChannel' in window ? new BroadcastChannel('tessera') : null;
const narrow = matchMedia('(max-width: 52rem)');
const touch = matchMedia('(pointer: coarse)');

const chat = new Chat(byId('log'), byId('messages'), byId('to-end'), {
    edit: (m, text) => send(text, m.parent),
    again: (m) => answer(talk, m.parent),
    retry,
    turn(m, n) {
        talk.turnTo(n);
        save(talk);
        show();
        byId('log').focus({ preventScroll: true });
    },
    heard,
});

const settings = new Settings((s) => {
    talk.meta.settings = s;
    localStorage.setItem('tessera.settings', JSON.stringify(s));
    if (talk.messages.size) save(talk);
    show();
});

/* ---- what is said aloud, shown as a notice, kept ---- */

/* For screen readers: whole blocks, not every token. */
function heard(node) {
    const text = typeof node === 'string' ? node : node.textContent;
    byId('heard').append(element('p', '', text));
    while (byId('heard').children.length > HEARD) byId('heard').firstChild.remove();
}

function notice(sentence, ...more) {
    const p = byId('notice');
    p.replaceChildren(sentence, ...more);
    p.hidden = !sentence;
}

async function save(t, messages = []) {
    if (!t.messages.size) return; // nothing was said, or it was removed
    t.meta.updated = Date.now();
    try {
        await store.put(t.meta, messages);
    } catch (e) {
        notice(`This browser couldn’t keep the conversation (${e?.message || 'no reason given'}): export what you need.`);
    }
    tabs?.postMessage({ id: t.meta.id });
    await drawList();
}

function lastSettings() {
    try {
        const s = JSON.parse(localStorage.getItem('tessera.settings'));
        return { ...noSettings(), ...s };
    } catch {
        return noSettings();
    }
}

/* ---- answers ---- */

/* Whether it was taken. */
function send(text, parent = talk.meta.head) {
    if (!text.trim() || jobs.has(talk.meta.id)) return false;
    const m = talk.add(parent, 'user', text);
    talk.meta.title ||= titleOf(text);
    m.finish = 'said';
    save(talk, [m]);
    if (location.hash !== `#c=${talk.meta.id}`) history.pushState(null, '', `#c=${talk.meta.id}`);
    answer(talk, m.n);
    return true;
}

/* An answer that has nothing yet is tried again in its place, another one beside it. */
function retry(m) {
    if (m.content || m.reasoning || m.tool_calls) {
        answer(talk, m.parent);
        return;
    }
    for (const name of ['error', 'kind', 'until', 'finish', 'speeds']) delete m[name];
    if (chat.views.has(m.n)) chat.views.get(m.n).stale = true;
    answer(talk, m.parent, m);
}

async function answer(t, parent, m) {
    if (jobs.has(t.meta.id)) return;
    m ??= t.add(parent, 'assistant', '');
    const job = { talk: t, m, stop: new AbortController(), pieces: 0, first: 0,
        began: performance.now(), saved: performance.now() };
    jobs.set(t.meta.id, job);
    if (server.model) m.model = server.model;
    show();
    chat.goToEnd();
    // Kept from the start: if the page goes away now, it says later that the answer was cut off.
    const kept = save(t, [m]);
    const tick = setInterval(() => talk === t && chat.changed(job), 1000);
    // The button that asked for it may be gone.
    if (document.activeElement === document.body) byId(touch.matches ? 'log' : 'message').focus({ preventScroll: true });
    try {
        if (toolsProblem(t.meta.settings.tools || '[]')) t.meta.settings.tools = '';
        await api.chat(t.request(parent), job.stop.signal, {
            delta: (d, finish) => grow(job, d, finish),
            usage: (usage, timings) => measure(job, usage, timings),
        });
        m.finish ??= 'stop';
    } catch (e) {
        failed(job, e);
    }
    clearInterval(tick);
    job.over = true;
    await kept;
    jobs.delete(t.meta.id);
    if (talk === t) chat.changed(job);
    speeds(job);
    save(t, [m]);
    show();
    if (m.error) heard(m.error);
    if (m.kind === 'key') askKey(m.error, () => talk === t && retry(m));
}

function grow(job, d, finish) {
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
    if (talk === job.talk) chat.changed(job);
    if (now - job.saved > SAVE_EVERY) {
        job.saved = now;
        if (job.talk.messages.size) store.put(job.talk.meta, [m]).catch(() => {}); // save() says it at the end
    }
}

function growCall(m, part) {
    const i = Number.isInteger(part.index) && part.index >= 0 && part.index < 128 ? part.index : 0;
    m.tool_calls ??= [];
    while (m.tool_calls.length <= i) m.tool_calls.push({ id: '', type: 'function', function: { name: '', arguments: '' } });
    const call = m.tool_calls[i];
    if (part.id) call.id = part.id;
    call.function.name += part.function?.name ?? '';
    call.function.arguments += part.function?.arguments ?? '';
}

function measure(job, usage, timings) {
    job.m.speeds = { ...job.m.speeds, ...timings };
    if (usage) {
        job.m.speeds.predicted_n ??= usage.completion_tokens;
        job.m.speeds.prompt_n ??= usage.prompt_tokens;
        job.m.speeds.total = usage.total_tokens;
    }
}

/* Of an answer that was stopped or broke, what the clock here says. */
function speeds(job) {
    const { m } = job;
    if (m.speeds?.predicted_n || job.pieces < 2) return;
    m.speeds = { ...m.speeds, predicted_n: job.pieces, predicted_ms: performance.now() - job.first };
}

function failed(job, e) {
    const { m } = job;
    if (e.name === 'AbortError') {
        m.finish = 'stopped';
        heard('Stopped.');
        return;
    }
    if (!(e instanceof api.Failure)) console.error(e);
    m.finish = 'error';
    m.error = e instanceof api.Failure ? e.message : `The page made a mistake: ${e.message}`;
    m.kind = e.kind ?? 'page';
    if (e.wait) m.until = Date.now() + 1000 * e.wait;
}

function stop() {
    const job = jobs.get(talk.meta.id);
    job?.stop.abort();
    return !!job;
}

/* ---- the API key ---- */

let afterKey = [];

function askKey(why, then) {
    afterKey.push(then);
    const dialog = byId('ask-key');
    byId('ask-key-why').textContent = why;
    if (dialog.open) return;
    byId('key').value = '';
    dialog.showModal();
}

function dropKey() {
    afterKey = [];
    byId('ask-key').close();
}

byId('key-cancel').addEventListener('click', dropKey);
byId('ask-key').addEventListener('cancel', dropKey);
byId('ask-key').addEventListener('submit', () => {
    const then = afterKey;
    afterKey = [];
    const given = byId('key').value.trim();
    byId('key').value = '';
    if (given) api.key.set(given);
    if (given) for (const f of then) f();
});

/* ---- the list of conversations ---- */

async function drawList() {
    list = await store.list();
    const words = byId('find').value.trim().toLowerCase();
    const nav = byId('list');
    if (nav.querySelector('form')) return; // a name is being written
    // Nodes that needn't change stay: one may be being clicked at.
    const looks = JSON.stringify([words, talk.meta.id, byId('plan-view').hidden,
        list.map((c) => [c.id, c.title, jobs.has(c.id)])]);
    if (looks === nav.looks) return;
    nav.looks = looks;
    const nodes = list.filter((c) => c.title.toLowerCase().includes(words)).map((c) => listItem(c));
    const focused = document.activeElement?.closest?.('#list [data-id]')?.dataset.id;
    const again = focused && document.activeElement.dataset.does;
    nav.replaceChildren(nodes.length ? element('ul', '', ...nodes)
        : element('p', 'muted', list.length ? 'None has this in its title.' : 'No conversations yet.'));
    if (focused) nav.querySelector(`[data-id="${focused}"] [data-does="${again}"]`)?.focus();
}

function listItem(c) {
    const shown = c.id === talk.meta.id && byId('plan-view').hidden;
    const a = element('a', '', c.title || 'Untitled');
    a.href = `#c=${c.id}`;
    a.dataset.does = 'open';
    if (shown) a.setAttribute('aria-current', 'page');
    if (jobs.has(c.id)) a.append(element('span', 'busy', ' …'));
    const li = element('li', shown ? 'shown' : '', a);
    li.dataset.id = c.id;
    if (shown)
        li.append(element('div', 'does',
            button('Rename', { does: 'rename', onclick: () => rename(c, li) }),
            button('Export', { does: 'export', onclick: () => exportThese([c]) }),
            button('Delete', { does: 'delete', onclick: () => remove(c) })));
    return li;
}

function rename(c, li) {
    const input = element('input');
    input.value = c.title;
    input.maxLength = 200;
    input.setAttribute('aria-label', 'Title of the conversation');
    byId('list').looks = '';
    const form = element('form', '', input);
    let over = false;
    const close = async (keep) => {
        if (over) return;
        over = true;
        form.remove();
        if (keep && input.value.trim() && input.value.trim() !== c.title) {
            talk.meta.title = input.value.trim();
            await save(talk);
            show();
        }
        await drawList();
        byId('list').querySelector('.shown [data-does="rename"]')?.focus();
    };
    form.addEventListener('submit', (e) => {
        e.preventDefault();
        close(true);
    });
    input.addEventListener('keydown', (e) => {
        if (e.key !== 'Escape') return;
        e.stopPropagation();
        close(false);
    });
    input.addEventListener('blur', () => close(true));
    li.replaceChildren(form);
    input.select();
    input.focus();
}

let removing; // the conversation that is asked about

function remove(c) {
    removing = c;
    byId('confirm-what').textContent =
        `“${c.title || 'Untitled'}” and its ${plural(talk.messages.size, 'message')} will be gone for good.`;
    byId('confirm').showModal();
}

byId('confirm').addEventListener('submit', async (e) => {
    if (e.submitter?.value !== 'ok') return;
    const { id } = removing;
    jobs.get(id)?.stop.abort();
    jobs.get(id)?.talk.messages.clear(); // nothing of it is kept from here on
    jobs.delete(id);
    await store.remove(id);
    tabs?.postMessage({ id, removed: true });
    await newChat();
});

async function exportThese(conversations) {
    const text = JSON.stringify(await store.export(conversations), null, 1);
    const a = element('a');
    a.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
    const day = new Date().toISOString().slice(0, 10);
    const title = conversations.length === 1 ? conversations[0].title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40) : 'chats';
    a.download = `tessera-${title || 'chat'}-${day}.json`;
    a.click();
    setTimeout(() => URL.revokeObjectURL(a.href), 10000);
}

byId('export-all').addEventListener('click', () => exportThese(list));
byId('import').addEventListener('click', () => byId('import-file').click());
byId('import-file').addEventListener('change', async (e) => {
    const [file] = e.target.files;
    if (!file) return;
    try {
        const added = await store.import(await file.text());
        notice('');
        heard(`${plural(added.length, 'conversation')} imported.`);
        if (added.length) location.hash = `#c=${added[0].id}`;
        await drawList();
    } catch (error) {
        notice(error.message);
    }
    e.target.value = '';
});
byId('find').addEventListener('input', drawList);

/* ---- views ---- */

function newChat() {
    if (location.hash) history.pushState(null, '', location.pathname + location.search);
    return route();
}

async function route() {
    const plan = location.hash === '#plan';
    byId('plan-view').hidden = !plan;
    byId('chat-view').hidden = plan;
    byId('open-plan').setAttribute('aria-pressed', String(plan));
    closeSide(false);
    if (plan) {
        if (!talk) await openTalk('');
        byId('title').textContent = 'Plan';
        document.title = 'Plan · Tessera';
        loadPlan();
        byId('plan-view').focus({ preventScroll: true });
        await drawList();
        return;
    }
    const id = location.hash.startsWith('#c=') ? location.hash.slice(3) : '';
    if (!talk || (talk.meta.id !== id && !(id === '' && !talk.messages.size))) await openTalk(id);
    show();
    await drawList();
    if (!touch.matches) byId('message').focus();
}

async function openTalk(id) {
    keepDraft();
    const turn = ++turns;
    const meta = id && (jobs.get(id)?.talk.meta ?? (await store.list()).find((c) => c.id === id));
    if (id && !meta) notice('This conversation isn’t in this browser.');
    const next = jobs.get(id)?.talk ?? (meta ? new Talk(meta, await store.load(meta))
        : new Talk(newConversation(lastSettings()), new Map()));
    if (turn !== turns) return; // another one was asked for meanwhile
    talk = next;
    byId('message').value = sessionStorage.getItem(draftKey()) ?? '';
    fit(byId('message'));
}

const draftKey = () => `tessera.draft.${talk.messages.size ? talk.meta.id : 'new'}`;

function keepDraft() {
    if (!talk) return;
    const text = byId('message').value;
    if (text) sessionStorage.setItem(draftKey(), text);
    else sessionStorage.removeItem(draftKey());
}

function show() {
    const job = jobs.get(talk.meta.id);
    if (!byId('chat-view').hidden) {
        byId('title').textContent = talk.meta.title || 'New chat';
        document.title = talk.meta.title ? `${talk.meta.title} · Tessera` : 'Tessera';
    }
    chat.show(talk, job, server.context);
    const b = byId('send');
    const label = job ? 'Stop' : 'Send';
    if (b.getAttribute('aria-label') !== label) {
        b.setAttribute('aria-label', label);
        b.title = job ? 'Stop (Esc)' : 'Send (Enter)';
        b.querySelector('use').setAttribute('href', job ? '#i-stop' : '#i-send');
    }
    const changed = Object.keys(talk.meta.settings.sampling).length;
    const parts = [];
    if (talk.meta.settings.system) parts.push('system prompt');
    if (talk.meta.settings.thinking) parts.push(`thinking ${talk.meta.settings.thinking}`);
    if (changed) parts.push(`${plural(changed, 'sampling setting')} changed`);
    if (talk.meta.settings.tools) parts.push('tools');
    byId('status').textContent = parts.join(' · ');
}

async function loadPlan() {
    const root = byId('plan');
    root.replaceChildren(element('p', 'muted', 'Asking the server…'));
    try {
        showPlan(root, await api.getJson('plan'));
    } catch (e) {
        const again = button('Try again', { className: 'retry', onclick: loadPlan });
        root.replaceChildren(element('p', 'wrong', e.message), again);
        if (e.kind === 'key') askKey(e.message, loadPlan);
    }
}

async function greet() {
    try {
        const models = await api.getJson('v1/models');
        server.model = String(models.data?.[0]?.id ?? '');
        const props = await api.getJson('props').catch(() => ({}));
        const given = props.default_generation_settings ?? {};
        server.context = given.n_ctx ?? props.n_ctx ?? 0;
        settings.defaults(given.params ?? given);
        const context = server.context ? ` · context ${count(server.context)}` : '';
        byId('model').textContent = server.model.split('/').at(-1) + context;
        notice(store.kept ? '' : 'This browser keeps nothing here: export what you need before you close the page.');
        show();
    } catch (e) {
        if (e.kind === 'key') askKey(e.message, greet);
        notice(`${e.message} `, button('Try again', { onclick: greet }));
    }
}

/* ---- the side, on a narrow window a drawer ---- */

function openSide() {
    document.body.classList.toggle('side-open', true);
    document.body.classList.remove('side-shut');
    byId('menu').setAttribute('aria-expanded', 'true');
    if (!narrow.matches) return;
    byId('main').inert = true;
    byId('side-close').focus();
}

function closeSide(byHand) {
    if (!narrow.matches && !byHand) return;
    const was = document.body.classList.contains('side-open');
    document.body.classList.remove('side-open');
    if (!narrow.matches) document.body.classList.add('side-shut');
    byId('menu').setAttribute('aria-expanded', 'false');
    byId('main').inert = false;
    if (was && byHand) byId('menu').focus();
}

const sideIsOpen = () => narrow.matches ? document.body.classList.contains('side-open')
    : !document.body.classList.contains('side-shut');
const toggleSide = () => sideIsOpen() ? closeSide(true) : openSide();

narrow.addEventListener('change', () => {
    document.body.classList.remove('side-open', 'side-shut');
    byId('main').inert = false;
    byId('menu').setAttribute('aria-expanded', String(sideIsOpen()));
});
byId('menu').addEventListener('click', toggleSide);
byId('menu').setAttribute('aria-expanded', String(!narrow.matches));
byId('side-close').addEventListener('click', () => closeSide(true));
addEventListener('click', (e) => {
    const outside = !byId('side').contains(e.target) && !byId('menu').contains(e.target);
    if (outside && narrow.matches && sideIsOpen()) closeSide(true);
});

/* ---- keys and buttons ---- */

const message = byId('message');

function sendMessage() {
    if (!message.value.trim() || jobs.has(talk.meta.id)) return;
    const text = message.value;
    message.value = '';
    keepDraft();
    fit(message);
    send(text);
    sessionStorage.removeItem('tessera.draft.new');
}

byId('composer').addEventListener('submit', (e) => {
    e.preventDefault();
    if (!stop()) sendMessage();
});
message.addEventListener('input', () => {
    fit(message);
    keepDraft();
});
message.addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing && !touch.matches) {
        e.preventDefault();
        sendMessage();
    } else if (e.key === 'ArrowUp' && !message.value) {
        e.preventDefault();
        editLast();
    }
});

function editLast() {
    if (jobs.has(talk.meta.id)) return;
    [...byId('messages').querySelectorAll('[data-edit]')].at(-1)?.click();
}

function againLast() {
    const last = talk.path().at(-1);
    if (last?.role === 'assistant') retry(last);
    else if (last) answer(talk, last.n);
}

function togglePlan() {
    if (byId('plan-view').hidden) location.hash = '#plan';
    else location.hash = talk?.messages.size ? `#c=${talk.meta.id}` : '';
}

function toMessage() {
    if (!byId('plan-view').hidden) togglePlan();
    message.focus();
}

const openSettings = () => settings.open(talk.meta.settings);
const openKeys = () => byId('keys').showModal();

byId('new-chat').addEventListener('click', newChat);
byId('open-plan').addEventListener('click', togglePlan);
byId('open-settings').addEventListener('click', openSettings);
byId('open-keys').addEventListener('click', openKeys);
byId('skip').addEventListener('click', (e) => {
    e.preventDefault();
    toMessage();
});

const SHORTCUTS = {
    KeyN: newChat, KeyL: toggleSide, KeyP: togglePlan, KeyS: openSettings, KeyK: openKeys, KeyI: toMessage,
    KeyR: againLast, KeyU: editLast,
    KeyC: () => [...byId('messages').querySelectorAll('.assistant [data-copy="text"]')].at(-1)?.click(),
};

addEventListener('keydown', (e) => {
    if (document.querySelector('dialog[open]')) return;
    if (e.key === 'Escape') {
        if (narrow.matches && sideIsOpen()) closeSide(true);
        else if (!stop() && !byId('plan-view').hidden) togglePlan();
        return;
    }
    if (!e.altKey || e.ctrlKey !== MAC || e.metaKey || !Object.hasOwn(SHORTCUTS, e.code)) return;
    e.preventDefault();
    SHORTCUTS[e.code]();
});

addEventListener('click', async (e) => {
    const b = e.target.closest?.('[data-copy]');
    if (!b) return;
    const text = b.textToCopy ? b.textToCopy() : b.closest('.code').querySelector('code').textContent;
    const ok = await copy(text);
    const word = ok ? 'Copied' : 'Not copied: the browser refused';
    heard(word);
    b.classList.add('copied');
    if (b.dataset.copy === 'code') b.textContent = ok ? 'Copied' : 'Refused';
    setTimeout(() => {
        b.classList.remove('copied');
        if (b.dataset.copy === 'code') b.textContent = 'Copy';
    }, 1500);
});

/* navigator.clipboard is there on https and localhost only. */
async function copy(text) {
    try {
        await navigator.clipboard.writeText(text);
        return true;
    } catch {
        const area = element('textarea', 'sr');
        area.value = text;
        const focused = document.activeElement;
        document.body.append(area);
        area.select();
        const ok = document.execCommand('copy');
        area.remove();
        focused?.focus();
        return ok;
    }
}

/* ---- other tabs, the end of the page ---- */

tabs?.addEventListener('message', async ({ data }) => {
    if (talk && data.id === talk.meta.id && !jobs.has(data.id) && !document.querySelector('.editing')) {
        const meta = (await store.list()).find((c) => c.id === data.id);
        if (meta) talk = new Talk(meta, await store.load(meta));
        else if (data.removed) await newChat();
        show();
    }
    await drawList();
});

/* The store may not come to it when the page goes away; this storage does, and the next page moves it. */
addEventListener('pagehide', () => {
    keepDraft();
    const left = [...jobs.values()].map(({ talk: t, m }) => ({ meta: t.meta, m }));
    try {
        if (left.length) localStorage.setItem('tessera.left', JSON.stringify(left));
    } catch {
        // longer than it takes: what was saved within the last second is there
    }
});

async function takeWhatWasLeft() {
    const left = JSON.parse(localStorage.getItem('tessera.left') || '[]');
    localStorage.removeItem('tessera.left');
    for (const { meta, m } of left) await store.put(meta, [m]);
}

addEventListener('hashchange', route);

store = await openStore();
await takeWhatWasLeft();
await route();
greet();
