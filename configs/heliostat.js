// Other spellings of a project's name, sent to the normal form (PEP 503).  For nginx's njs module; see nginx.conf.

const ADDRESS = /^\/(simple|pypi)\/([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(\/json)?\/?$/;
const LONGEST = 255; // bytes that a directory entry holds

function redirect(r) {
    const asked = ADDRESS.exec(r.uri); // decoded, so only what matched may go into the answer
    const normal = asked ? asked[2].replace(/[-_.]+/g, '-').toLowerCase() : '';
    if (!asked || normal.length > LONGEST || (asked[1] === 'pypi') !== (asked[3] !== undefined)) {
        r.return(404);
        return;
    }
    const query = r.variables.args ? '?' + r.variables.args : ''; // as it was sent
    r.return(301, '/' + asked[1] + '/' + normal + (asked[3] || '/') + query);
}

export default { redirect };
