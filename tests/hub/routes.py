"""The test server's answer to each request of huggingface_hub.

After https://huggingface.co/docs/hub/api and what the client itself sends and reads. Models alone, one branch "main",
LFS by its "basic" transfer, no Xet.
"""

import base64
import json
import re
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote

from answers import Answer, Api, Refusal, Request, say
from card import problems
from store import REGULAR_BYTES, Commit, File, pointer


def answer(api: Api, request: Request) -> Answer:
    """The answer to a request."""
    try:
        for methods, pattern, function in ROUTES:
            if request.method in methods and (match := re.fullmatch(pattern, request.path)):
                return function(api, request, *(unquote(group) for group in match.groups()))
        raise Refusal(404, "Sorry, we can't find the page you are looking for.")
    except Refusal as refusal:
        return refusal.answer


def whoami(api: Api, request: Request) -> Answer:
    account = api.account(request)
    if account is None:
        raise Refusal(401, "Invalid username or password.")
    organizations = [{"type": "org", "name": name, "roleInOrg": "write"} for name in account.organizations]
    token = {"accessToken": {"displayName": "token", "role": "write" if account.write else "read"}}
    return say({"type": "user", "name": account.user, "orgs": organizations, "auth": {"type": "access_token"} | token})


def validate_yaml(api: Api, request: Request) -> Answer:
    errors, warnings = problems(request.json()["content"])
    listed = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return say(listed, 400 if errors else 200)


def create_repo(api: Api, request: Request) -> Answer:
    wanted = request.json()
    account = api.account(request)
    repo = f"{wanted.get('organization') or (account.user if account else '')}/{wanted['name']}"
    api.own(request, repo)
    named = {"url": f"{api.url}/{repo}", "name": repo}
    with api.store.lock:
        if api.store.exists(repo):
            return say({"error": "You already created this model repo"} | named, 409)
        api.store.create(repo)
        if wanted.get("visibility") == "private" or wanted.get("private"):  # of older clients
            api.store.mark(repo, "private")
    return say(named)


def info(api: Api, request: Request, repo: str, revision: str = "main") -> Answer:
    api.readable(request, repo)
    commit = api.commit(repo, revision)
    whole = "blobs" in request.query
    siblings = [sibling(path, file) if whole else {"rfilename": path} for path, file in commit.files.items()]
    marks = {"private": api.store.marked(repo, "private"), "gated": api.store.marked(repo, "gated") and "manual"}
    found = {"id": repo, "modelId": repo, "author": repo.split("/")[0], "sha": commit.id, "tags": [], **marks}
    return say({**found, "lastModified": commit.date, "downloads": 0, "likes": 0, "siblings": siblings})


def large(file: File) -> dict[str, int]:
    """The sizes of an LFS file and of its pointer, in bytes."""
    assert file.sha256
    return {"size": file.size, "pointerSize": len(pointer(file.sha256, file.size))}


def sibling(path: str, file: File) -> dict[str, Any]:
    """The entry of a file in a repository's description."""
    lfs = {"lfs": {"sha256": file.sha256} | large(file)} if file.sha256 else {}
    return {"rfilename": path, "blobId": file.oid, "size": file.size} | lfs


def entry(path: str, file: File) -> dict[str, Any]:
    """The entry of a file in a tree."""
    lfs = {"lfs": {"oid": file.sha256} | large(file)} if file.sha256 else {}
    return {"type": "file", "oid": file.oid, "size": file.size, "path": path} | lfs


def entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Every file and every folder of a commit, by its path."""
    found = {path: entry(path, file) for path, file in commit.files.items()}
    for folder in {str(parent) for path in commit.files for parent in Path(path).parents} - {"."}:
        inside = [(path, file.oid) for path, file in commit.files.items() if path.startswith(f"{folder}/")]
        found[folder] = {"type": "directory", "oid": sha1(repr(inside).encode()).hexdigest(), "size": 0, "path": folder}
    return dict(sorted(found.items()))


def tree(api: Api, request: Request, repo: str, revision: str, folder: str = "") -> Answer:
    api.granted(request, repo)
    found = entries(api.commit(repo, revision))
    if folder and found.get(folder, {}).get("type") != "directory":
        raise Refusal(404, f"{folder} does not exist on {revision!r}", "EntryNotFound")
    below = {path: value for path, value in found.items() if not folder or path.startswith(f"{folder}/")}
    deep = request.query.get("recursive", [""])[0].lower() in ("true", "1")
    depth = folder.count("/") + 1 if folder else 0
    return say([value for path, value in below.items() if deep or path.count("/") == depth])


def paths_info(api: Api, request: Request, repo: str, revision: str) -> Answer:
    api.granted(request, repo)
    found = entries(api.commit(repo, revision))
    wanted = parse_qs(b"".join(request.pieces()).decode()).get("paths", [])
    return say([found[path] for path in wanted if path in found])


def refs(api: Api, request: Request, repo: str) -> Answer:
    api.readable(request, repo)
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": api.commit(repo, "main").id}
    tags = [
        {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": commit} for tag, commit in api.store.tags(repo).items()
    ]
    return say({"branches": [main], "converts": [], "tags": tags, "pullRequests": []})


def commits(api: Api, request: Request, repo: str, revision: str) -> Answer:
    api.readable(request, repo)
    api.commit(repo, revision)
    found = api.store.commits(repo, revision)
    return say([{"id": one.id, "title": one.message, "message": "", "date": one.date, "authors": []} for one in found])


def create_tag(api: Api, request: Request, repo: str, revision: str) -> Answer:
    api.writable(request, repo)
    if not api.store.tag(repo, request.json()["tag"], api.commit(repo, revision).id):
        raise Refusal(409, "Tag reference exists already")
    return say({"success": True})


def delete_tag(api: Api, request: Request, repo: str, tag: str) -> Answer:
    api.writable(request, repo)
    if tag not in api.store.tags(repo):
        raise Refusal(404, f"Tag not found: {tag}", "RevisionNotFound")
    api.store.tag_file(repo, tag).unlink()
    return say({"success": True})


def preupload(api: Api, request: Request, repo: str, revision: str) -> Answer:
    api.writable(request, repo)
    present = api.commit(repo, revision).files
    found = []
    for file in request.json()["files"]:
        path, large = file["path"], api.store.is_large(repo, file["path"], file["size"])
        old = {"oid": present[path].key} if path in present else {}
        found.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False} | old)
    return say({"files": found, "commitOid": api.commit(repo, revision).id})


def lfs_batch(api: Api, request: Request, repo: str) -> Answer:
    api.writable(request, repo)
    found = []
    for wanted in request.json()["objects"]:
        oid, size = wanted["oid"], wanted["size"]
        upload = {"href": f"{api.cdn}/upload/{oid}", "header": {}}
        verify = {"href": f"{api.url}/{repo}.git/info/lfs/verify", "header": {}}
        absent = {} if api.store.lfs(oid, size) else {"actions": {"upload": upload, "verify": verify}}
        found.append({"oid": oid, "size": size} | absent)
    return say({"transfer": "basic", "objects": found}, headers={"Content-Type": "application/vnd.git-lfs+json"})


def lfs_verify(api: Api, request: Request, repo: str) -> Answer:
    api.own(request, repo)
    wanted = request.json()
    if api.store.lfs(wanted["oid"], wanted["size"]) is None:
        raise Refusal(404, f"Object {wanted['oid']} was not received")
    return say({})


def upload(api: Api, request: Request, sha256: str) -> Answer:
    unsigned(request)
    if not api.store.receive(request.pieces(), sha256):
        raise Refusal(400, "The content has another hash")
    return Answer()


def commit(api: Api, request: Request, repo: str, revision: str) -> Answer:
    """Commit the lines of the body: first a header, then an added or deleted file per line."""
    api.writable(request, repo)
    header, *changes = [json.loads(line) for line in b"".join(request.pieces()).splitlines()]
    if revision != "main":
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    added = {one["value"]["path"]: ADDED[one["key"]](api, one["value"]) for one in changes if one["key"] in ADDED}
    with api.store.lock:
        head = api.commit(repo, "main")
        if header["value"].get("parentCommit") not in (None, head.id):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        gone = [path for one in changes if one["key"] not in ADDED for path in deleted(head, one["value"]["path"])]
        made = api.store.commit(repo, added, header["value"]["summary"], gone)
    return say({"success": True, "commitOid": made, "commitUrl": f"{api.url}/{repo}/commit/{made}", "hookOutput": ""})


def regular_file(api: Api, value: dict[str, Any]) -> File:
    content = base64.b64decode(value["content"])
    if len(content) > REGULAR_BYTES:
        raise Refusal(400, f"Your push was rejected because it contains files larger than 10 MiB: {value['path']}")
    return api.store.regular(content)


def lfs_file(api: Api, value: dict[str, Any]) -> File:
    file = api.store.lfs(value["oid"], value["size"])
    if file is None:
        raise Refusal(400, f"LFS pointer pointed to a file that does not exist: {value['path']}")
    return file


def deleted(head: Commit, path: str) -> list[str]:
    """The path of a file, or of all files in a folder."""
    found = [file for file in head.files if file == path or file.startswith(path.rstrip("/") + "/")]
    if not found:
        raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    return found


def resolve(api: Api, request: Request, repo: str, revision: str, path: str) -> Answer:
    api.granted(request, repo)
    commit = api.commit(repo, revision)
    file = commit.files.get(path)
    if file is None:
        refusal = Refusal(404, "Entry not found", "EntryNotFound")
        refusal.answer.headers["X-Repo-Commit"] = commit.id  # the client caches by it that the file does not exist
        raise refusal
    headers = {"X-Repo-Commit": commit.id, "ETag": f'"{file.key}"', "Accept-Ranges": "bytes"}
    if not file.sha256:
        return Answer(body=api.store.blob(file.key), headers=headers | {"Content-Type": "text/plain; charset=utf-8"})
    linked = {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
    return Answer(status=302, headers=headers | linked | {"Location": f"{api.cdn}/cdn/{file.sha256}/{quote(path)}"})


def cdn(api: Api, request: Request, sha256: str, path: str) -> Answer:
    unsigned(request)
    blob = api.store.blob(sha256)
    if not blob.is_file():
        raise Refusal(404, "Not found")
    return Answer(body=blob, headers={"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})


def unsigned(request: Request) -> None:
    """Refuse a token, like a content delivery network, where the URL alone gives access."""
    if request.token:
        raise Refusal(400, "Only one auth mechanism allowed")


ADDED = {"file": regular_file, "lfsFile": lfs_file}  # the others are deletedFile and deletedFolder
REPO, PART, HASH = r"([\w.-]+/[\w.-]+)", "([^/]+)", "([0-9a-f]{64})"
MODEL = f"/api/models/{REPO}"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Answer]]] = [
    (("GET",), "/api/whoami-v2", whoami),
    (("GET",), "/api/agent-harnesses", lambda api, request: say({"standardEnvVars": [], "harnesses": {}})),
    (("POST",), "/api/validate-yaml", validate_yaml),
    (("POST",), "/api/repos/create", create_repo),
    (("GET",), MODEL, info),
    (("GET",), f"{MODEL}/revision/{PART}", info),
    (("GET",), f"{MODEL}/refs", refs),
    (("GET",), f"{MODEL}/commits/{PART}", commits),
    (("GET",), f"{MODEL}/tree/{PART}", tree),
    (("GET",), f"{MODEL}/tree/{PART}/(.+)", tree),
    (("POST",), f"{MODEL}/paths-info/{PART}", paths_info),
    (("POST",), f"{MODEL}/preupload/{PART}", preupload),
    (("POST",), f"{MODEL}/commit/{PART}", commit),
    (("POST",), f"{MODEL}/tag/{PART}", create_tag),
    (("DELETE",), f"{MODEL}/tag/{PART}", delete_tag),
    (("POST",), f"/{REPO}.git/info/lfs/objects/batch", lfs_batch),
    (("POST",), f"/{REPO}.git/info/lfs/verify", lfs_verify),
    (("PUT",), f"/upload/{HASH}", upload),
    (("GET", "HEAD"), f"/{REPO}/resolve/{PART}/(.+)", resolve),
    (("GET", "HEAD"), f"/cdn/{HASH}/(.+)", cdn),
]
