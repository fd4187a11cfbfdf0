"""Responses of search services as they are published: every field, with values of our own.

Looked up in November 2026:

- Serper: interfaces that its users publish (`searchParameters`, `organic`, `images`, `credits`).
- Tavily: docs.tavily.com/api-reference/endpoint/search.
- Brave: github.com/brave/brave-search-skills, web-search and images-search; errors of its API reference.
- SearXNG: docs.searxng.org/dev/search_api, and interfaces of its users for the fields of a result.
- MediaWiki, with `formatversion=2`: API:Search, API:Imageinfo, Extension:TextExtracts, Manual:Maxlag parameter.
- Jina: docs.jina.ai, r.reader; github.com/jina-ai/reader, `src/services/errors.ts`.
"""

from __future__ import annotations

from typing import Any

SERPER_PAGES: dict[str, Any] = {
    "searchParameters": {"q": "harrow union", "type": "search", "num": 10, "engine": "google"},
    "organic": [
        {
            "title": "Harrow Union",
            "link": "https://example.org/harrow",
            "snippet": "The club plays in green.",
            "date": "Mar 3, 2026",
            "position": 1,
        }
    ],
    "credits": 1,
}
SERPER_IMAGES: dict[str, Any] = {
    "searchParameters": {"q": "harrow union", "type": "images", "num": 10, "engine": "google"},
    "images": [
        {
            "title": "The kit of Harrow Union",
            "imageUrl": "https://img.example.org/kit.jpg",
            "imageWidth": 1200,
            "imageHeight": 800,
            "thumbnailUrl": "https://thumbs.example.org/kit.jpg",
            "thumbnailWidth": 275,
            "thumbnailHeight": 183,
            "source": "Example Sports",
            "domain": "example.org",
            "link": "https://example.org/harrow/kit",
            "googleUrl": "https://www.google.com/imgres?imgurl=kit",
            "position": 1,
        }
    ],
    "credits": 1,
}
SERPER_ACCOUNT: dict[str, Any] = {"balance": 2481, "rateLimit": 5}
SERPER_WRONG_KEY = (403, {"message": "Unauthorized.", "statusCode": 403})
SERPER_NO_CREDITS = (400, {"message": "Not enough credits", "statusCode": 400})

TAVILY: dict[str, Any] = {
    "query": "harrow union",
    "answer": None,
    "images": [{"url": "https://img.example.org/kit.jpg", "description": "A green kit."}],
    "results": [
        {
            "title": "Harrow Union",
            "url": "https://example.org/harrow",
            "content": "The club plays in green.",
            "score": 0.81,
            "raw_content": None,
            "favicon": "https://example.org/favicon.png",
        }
    ],
    "response_time": 1.67,
    "usage": {"credits": 1},
    "request_id": "123e4567-e89b-12d3-a456-426614174111",
}
TAVILY_USAGE: dict[str, Any] = {
    "key": {"usage": 150, "limit": 1000},
    "account": {"plan_usage": 500, "plan_limit": 15000},
}
TAVILY_WRONG_KEY = (401, {"detail": {"error": "Unauthorized: missing or invalid API key."}})
TAVILY_TOO_LONG = (400, {"detail": {"error": "Query is too long. Max query length is 400 characters."}})
TAVILY_RATE = (
    429,
    {"detail": {"error": "Your request has been blocked due to excessive requests. Please reduce rate of requests."}},
)
TAVILY_PLAN = (
    432,
    {"detail": {"error": "This request exceeds your plan's set usage limit."}},
)
TAVILY_PAYGO = (433, {"detail": {"error": "This request exceeds the pay-as-you-go limit."}})

BRAVE_PAGES: dict[str, Any] = {
    "type": "search",
    "query": {
        "original": "harrow union",
        "altered": None,
        "cleaned": "harrow union",
        "spellcheck_off": False,
        "more_results_available": True,
    },
    "web": {
        "type": "search",
        "results": [
            {
                "title": "Harrow Union",
                "url": "https://example.org/harrow",
                "description": "The club plays in <strong>green</strong>.",
                "age": "2 days ago",
                "page_age": "2026-03-03T14:22:41",
                "language": "en",
                "meta_url": {
                    "scheme": "https",
                    "netloc": "example.org",
                    "hostname": "example.org",
                    "path": "/harrow",
                },
                "thumbnail": {"src": "https://imgs.search.brave.com/a", "original": "https://example.org/a.jpg"},
                "extra_snippets": ["Founded in 1931."],
            }
        ],
        "family_friendly": True,
    },
    "mixed": {"type": "mixed", "main": [{"type": "web", "index": 0, "all": False}], "top": [], "side": []},
}
BRAVE_IMAGES: dict[str, Any] = {
    "type": "images",
    "query": {
        "original": "harrow union",
        "altered": None,
        "spellcheck_off": False,
        "show_strict_warning": False,
    },
    "results": [
        {
            "type": "image_result",
            "title": "The kit of Harrow Union",
            "url": "https://example.org/harrow/kit",
            "source": "example.org",
            "page_fetched": "2026-01-15T10:30:00Z",
            "thumbnail": {"src": "https://imgs.search.brave.com/kit", "width": 200, "height": 150},
            "properties": {
                "url": "https://img.example.org/kit.jpg",
                "placeholder": "https://imgs.search.brave.com/placeholder",
                "width": 1920,
                "height": 1080,
            },
            "meta_url": {
                "scheme": "https",
                "netloc": "example.org",
                "hostname": "example.org",
                "favicon": "https://imgs.search.brave.com/favicon",
                "path": "/harrow/kit",
            },
            "confidence": "high",
        }
    ],
    "extra": {"might_be_offensive": False},
}


def brave_error(
    status: int, code: str, detail: str, component: str, *, listed: bool = False
) -> tuple[int, dict[str, Any]]:
    """Return an error of Brave: an object, or a list of one as in the examples of its reference."""
    error = {
        "id": "5d832250-9396-4f6e-b84a-2a1fe524cd7d",
        "status": status,
        "code": code,
        "detail": detail,
        "meta": {"component": component},
    }
    inner = {"errors": [error]} if listed else {"error": error}
    return status, {"type": "ErrorResponse", **inner, "time": 1663072993}


BRAVE_WRONG_KEY = brave_error(
    422, "SUBSCRIPTION_TOKEN_INVALID", "The provided subscription token is invalid.", "authentication"
)
BRAVE_NO_PLAN = brave_error(404, "SUBSCRIPTION_NOT_FOUND", "No subscription found.", "subscriptions", listed=True)
BRAVE_RATE = brave_error(429, "RATE_LIMITED", "Request rate limit exceeded for plan.", "rate_limiter")
BRAVE_QUOTA = brave_error(429, "QUOTA_LIMITED", "Request quota limit exceeded for plan.", "rate_limiter", listed=True)
BRAVE_INVALID = brave_error(422, "VALIDATION", "Unable to validate request parameter(s)", "validation")
BRAVE_RATE_HEADERS = {
    "X-RateLimit-Limit": "1, 15000",
    "X-RateLimit-Policy": "1;w=1, 15000;w=2592000",
    "X-RateLimit-Remaining": "0, 1000",
    "X-RateLimit-Reset": "1, 1419704",
}

SEARXNG_PAGES: dict[str, Any] = {
    "query": "harrow union",
    "number_of_results": 0,
    "results": [
        {
            "url": "https://example.org/harrow",
            "title": "Harrow Union",
            "content": "The club plays in green.",
            "publishedDate": "2026-03-03T00:00:00",
            "thumbnail": "",
            "engine": "duckduckgo",
            "template": "default.html",
            "parsed_url": ["https", "example.org", "/harrow", "", "", ""],
            "img_src": "",
            "priority": "",
            "engines": ["duckduckgo", "brave"],
            "positions": [1, 2],
            "score": 3.0,
            "category": "general",
        }
    ],
    "answers": [],
    "corrections": [],
    "infoboxes": [],
    "suggestions": ["harrow union kit"],
    "unresponsive_engines": [],
}
SEARXNG_IMAGES: dict[str, Any] = {
    **SEARXNG_PAGES,
    "results": [
        {
            "url": "https://example.org/harrow/kit",
            "title": "The kit of Harrow Union",
            "content": "",
            "img_src": "//img.example.org/kit.jpg",
            "thumbnail_src": "https://thumbs.example.org/kit.jpg",
            "thumbnail": "",
            "resolution": "1200 x 800",
            "source": "Example Sports",
            "engine": "bing images",
            "template": "images.html",
            "parsed_url": ["https", "example.org", "/harrow/kit", "", "", ""],
            "priority": "",
            "engines": ["bing images"],
            "positions": [1],
            "score": 1.0,
            "category": "images",
        }
    ],
}
SEARXNG_NO_JSON = (403, b"<!doctype html>\n<html lang=en>\n<title>403 Forbidden</title>\n<h1>Forbidden</h1>\n")

WIKI_SEARCH: dict[str, Any] = {
    "batchcomplete": True,
    "continue": {"sroffset": 1, "continue": "-||"},
    "query": {
        "search": [
            {
                "ns": 0,
                "title": "Harrow Union",
                "pageid": 1558412,
                "snippet": '<span class="searchmatch">Harrow</span> Union plays in green &amp; white',
                "timestamp": "2026-03-03T14:22:41Z",
            }
        ]
    },
}
WIKI_EXTRACT: dict[str, Any] = {
    "batchcomplete": True,
    "query": {
        "pages": [
            {
                "pageid": 1558412,
                "ns": 0,
                "title": "Harrow Union",
                "extract": "Harrow Union is a club.\nIt plays in green.\n\n\nHistory\nFounded in 1931.",
                "contentmodel": "wikitext",
                "pagelanguage": "en",
                "pagelanguagehtmlcode": "en",
                "pagelanguagedir": "ltr",
                "touched": "2026-11-01T00:00:00Z",
                "lastrevid": 1300000000,
                "length": 4000,
                "fullurl": "https://en.wikipedia.org/wiki/Harrow_Union",
                "editurl": "https://en.wikipedia.org/w/index.php?title=Harrow_Union&action=edit",
                "canonicalurl": "https://en.wikipedia.org/wiki/Harrow_Union",
            }
        ]
    },
}
WIKI_MISSING: dict[str, Any] = {"ns": 0, "title": "Nowhere", "missing": True}
WIKI_IMAGES: dict[str, Any] = {
    "batchcomplete": True,
    "query": {
        "pages": [
            {
                "pageid": 8771242,
                "ns": 6,
                "title": "File:Harrow Union kit 2026.jpg",
                "index": 1,
                "imagerepository": "local",
                "imageinfo": [
                    {
                        "size": 816217,
                        "width": 1566,
                        "height": 2226,
                        "thumburl": "https://upload.wikimedia.org/thumb/harrow.jpg/960px-harrow.jpg",
                        "thumbwidth": 960,
                        "thumbheight": 1365,
                        "url": "https://upload.wikimedia.org/harrow.jpg",
                        "descriptionurl": "https://commons.wikimedia.org/wiki/File:Harrow_Union_kit_2026.jpg",
                        "descriptionshorturl": "https://commons.wikimedia.org/w/index.php?curid=8771242",
                        "mime": "image/jpeg",
                    }
                ],
            }
        ]
    },
}
WIKI_LAGGED: dict[str, Any] = {
    "error": {
        "code": "maxlag",
        "info": "Waiting for 10.64.32.58: 7.1 seconds lagged.",
        "host": "10.64.32.58",
        "lag": 7.1,
        "type": "db",
        "docref": "See https://en.wikipedia.org/w/api.php for API usage.",
    }
}
WIKI_LAGGED_HEADERS = {"Retry-After": "5", "X-Database-Lag": "7", "MediaWiki-API-Error": "maxlag"}
WIKI_NO_AGENT = (403, b"Please set a user-agent and respect our robot policy https://w.wiki/4wJS. See also T400119.")
WIKI_RATE = (429, b"Too many requests. Please respect our robot policy https://w.wiki/4wJS.")

JINA: dict[str, Any] = {
    "code": 200,
    "status": 20000,
    "data": {
        "title": "Harrow Union",
        "description": "A club.",
        "url": "https://example.org/harrow",
        "content": "Harrow Union\n===============\n\nThe club plays in green.\n",
        "links": {"The kit": "https://example.org/harrow/kit"},
        "usage": {"tokens": 1500},
    },
}


def jina_error(status: int, number: int, name: str, message: str, **more: Any) -> tuple[int, dict[str, Any]]:
    """Return an error of Jina's reader."""
    return status, {
        "data": None,
        **more,
        "code": status,
        "name": name,
        "status": number,
        "message": message,
        "readableMessage": f"{name}: {message}",
    }


JINA_WRONG_KEY = jina_error(401, 40103, "AuthenticationFailedError", "Invalid API key")
JINA_NO_BALANCE = jina_error(
    402, 40203, "InsufficientBalanceError", "Account balance not enough to run this query, please recharge."
)
JINA_RATE = jina_error(
    429,
    42903,
    "RateLimitTriggeredError",
    "Per IP rate limit exceeded",
    retryAfter=7,
    retryAfterDate="2026-11-28T20:00:07.000Z",
)
JINA_BLOCKED = jina_error(451, 45102, "SecurityCompromiseError", "Domain example.org blocked until 2026-11-29")
JINA_FAILED = jina_error(422, 42206, "AssertionFailureError", "Failed to goto https://example.org: net::ERR")
