/* list.js - the conversations at the side: opened, found, renamed, exported, imported, removed. */

import { button, byId, element, plural } from './dom.js';

export class List {
    /* page: shown() is the Talk on the page or null, busy(id), renamed(title), removed(id),
     * imported(conversations), failed(sentence). */
    constructor(store, page) {
        this.store = store;
        this.page = page;
        this.all = []; // the newest first
        this.looks = '';
        byId('find').addEventListener('input', () => this.draw());
        byId('export-all').addEventListener('click', () => this.export(this.all));
        byId('import').addEventListener('click', () => byId('import-file').click());
        byId('import-file').addEventListener('change', (e) => this.import(e.target));
        byId('confirm').addEventListener('submit', (e) => {
            if (e.submitter?.value === 'ok') page.removed(this.removing.id);
        });
    }

    async draw() {
        this.all = await this.store.list();
        const words = byId('find').value.trim().toLowerCase();
        const nav = byId('list');
        if (nav.querySelector('form')) return; // a name is being written
        // Nodes that needn't change stay: one may be being clicked at.
        const looks = JSON.stringify([words, this.page.shown()?.meta.id,
            this.all.map((c) => [c.id, c.title, this.page.busy(c.id)])]);
        if (looks === this.looks) return;
        this.looks = looks;
        const found = this.all.filter((c) => c.title.toLowerCase().includes(words));
        const { id, does } = focusIn(nav);
        nav.replaceChildren(found.length ? element('ul', '', ...found.map((c) => this.item(c)))
            : element('p', 'muted', this.all.length ? 'None has this in its title.' : 'No conversations yet.'));
        if (id) nav.querySelector(`[data-id="${id}"] [data-does="${does}"]`)?.focus();
    }

    item(c) {
        const shown = c.id === this.page.shown()?.meta.id;
        const a = element('a', this.page.busy(c.id) ? 'busy' : '', c.title || 'Untitled');
        a.href = `#c=${c.id}`;
        a.dataset.does = 'open';
        if (shown) a.setAttribute('aria-current', 'page');
        const li = element('li', shown ? 'shown' : '', a);
        li.dataset.id = c.id;
        if (shown)
            li.append(element('div', 'does',
                button('Rename', { does: 'rename', onclick: () => this.rename(c, li) }),
                button('Export', { does: 'export', onclick: () => this.export([c]) }),
                button('Delete', { does: 'delete', onclick: () => this.remove(c) })));
        return li;
    }

    rename(c, li) {
        const input = element('input');
        input.value = c.title;
        input.maxLength = 200;
        input.setAttribute('aria-label', 'Title of the conversation');
        this.looks = '';
        const form = element('form', '', input);
        let over = false;
        const close = async (keep) => {
            if (over) return;
            over = true;
            form.remove();
            const title = input.value.trim();
            if (keep && title && title !== c.title) await this.page.renamed(title);
            await this.draw();
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

    remove(c) {
        this.removing = c;
        const n = this.page.shown()?.messages.size ?? 0;
        byId('confirm-what').textContent =
            `“${c.title || 'Untitled'}” and its ${plural(n, 'message')} will be gone for good.`;
        byId('confirm').showModal();
    }

    async export(conversations) {
        const text = JSON.stringify(await this.store.export(conversations), null, 1);
        const a = element('a');
        a.href = URL.createObjectURL(new Blob([text], { type: 'application/json' }));
        const title = conversations.length === 1 ? conversations[0].title : 'chats';
        const name = title.replace(/[^\p{L}\p{N}]+/gu, '-').slice(0, 40) || 'chat';
        a.download = `tessera-${name}-${new Date().toISOString().slice(0, 10)}.json`;
        a.click();
        setTimeout(() => URL.revokeObjectURL(a.href), 10000);
    }

    async import(input) {
        const [file] = input.files;
        if (!file) return;
        try {
            this.page.imported(await this.store.import(await file.text()));
        } catch (e) {
            this.page.failed(e.message);
        }
        input.value = '';
    }
}

/* What of the list has the focus: which conversation, and what of it. */
function focusIn(nav) {
    const e = document.activeElement;
    const li = nav.contains(e) ? e.closest('[data-id]') : null;
    return li ? { id: li.dataset.id, does: e.dataset.does } : {};
}
