/* key.js - asks for the API key, which stays in this tab. */

import * as api from './api.js';
import { byId } from './dom.js';

let afterKey = []; // what waits for it
let given = '';

export function askKey(why, then) {
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
    given = byId('key').value.trim();
    byId('key').value = '';
});
// Who waits goes on when it is closed: it may have to be asked for again.
byId('ask-key').addEventListener('close', () => {
    if (!given) return;
    api.key.set(given);
    given = '';
    for (const f of afterKey.splice(0)) f();
});
