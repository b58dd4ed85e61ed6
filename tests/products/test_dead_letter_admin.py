"""Failed messages in the admin: seen, corrected, replayed, discarded, each with a name to it."""

import html
import json
from datetime import timedelta
from uuid import UUID

import pytest
from django.contrib.admin.models import LogEntry
from django.db import transaction
from django.urls import reverse
from django.utils import timezone

from servicekit.backoffice import actions
from servicekit.contracts.events import OrderCancelled, OrderCreated
from servicekit.dead_letters import replays, services
from servicekit.dead_letters.models import DeadLetter
from servicekit.dead_letters.recognising import Letter, read, subjects
from servicekit.identifiers import new_id
from servicekit.messaging.consumer import Handled, Subscription
from servicekit.outbox.models import OutgoingEvent
from tests.products.answers import reserve

pytestmark = pytest.mark.django_db

LIST = "admin:dead_letters_deadletter_changelist"
PAGE = "admin:dead_letters_deadletter_change"
REASONS = "admin:dead_letters_deadletter_by_reason"
SAVE_AND_REPLAY = {"dead_letters_deadletter_save_and_replay": ""}
GOOD = json.dumps({"orderId": 1, "productId": str(UUID(int=1)), "quantity": 2})
Status = DeadLetter.Status
ID = str(new_id())


def bury(
    body: bytes = b'{"orderId": 1}',
    queue: str = "product_order_queue",
    reason: str = "a field is missing",
) -> DeadLetter:
    message = DeadLetter(body=body, queue=queue, message_id=str(new_id()), reason=reason)
    services.collect([letter_of(message)])
    return DeadLetter.objects.get(message_id=message.message_id)


def letter_of(message: DeadLetter) -> Letter:
    headers = {
        "x-dead-letter-reason": message.reason or "a field is missing",
        "x-dead-letter-routing-key": "order.created",
    }
    properties = {"message_id": message.message_id, "correlation_id": "77"}
    return read(message.queue, message.body, headers, properties)


def act(client, name: str, message: DeadLetter, **facts: str):
    """Confirm an action of a message's page."""
    address = reverse(f"admin:dead_letters_deadletter_{name}", args=[message.pk])
    return client.post(address, {"confirmed": "1", **facts})


def act_on(client, name: str, *messages: DeadLetter, **facts: str):
    """Submit an action on several messages."""
    selection = {"action": name, "_selected_action": [str(each.pk) for each in messages]}
    return client.post(reverse(LIST), {**selection, **facts}, follow=True)


def history(message: DeadLetter) -> list[tuple[str, str]]:
    return [(event.what, event.who) for event in message.events.order_by("id")]


class TestTheList:
    def test_says_what_why_how_often_and_how_it_begins(self, admin_client):
        bury()
        content = admin_client.get(reverse(LIST)).content.decode()

        for expected in ("order.created", "a field is missing", "orderId", "times seen"):
            assert expected.casefold() in content.casefold()

    def test_reads_only_the_beginning_of_a_large_body(self, admin_client):
        bury(b"x" * 1_000_000)

        assert len(admin_client.get(reverse(LIST)).content) < 200_000

    @pytest.mark.parametrize(
        ("query", "found"),
        [("", 1), ("?status__exact=WAITING", 1), ("?status__exact=DISCARDED", 1),
         ("?status__exact=all", 2), ("?status__exact=nonsense", 0), ("?queue=another_queue", 0),
         ("?queue=another_queue&status__exact=all", 1), ("?queue=product_cancellation_queue", 0),
         ("?q=77", 2), ("?q=78", 0)],
    )  # fmt: skip
    def test_is_filtered_and_searched(self, admin_client, query, found):
        bury()
        discarded = bury(queue="another_queue")
        services.discard([discarded.pk], by="ada", note="no use")
        answer = admin_client.get(reverse(LIST) + query)

        assert answer.context["cl"].result_count == found

    def test_is_announced_in_the_sidebar_and_on_the_start_page(self, admin_client):
        bury()
        content = admin_client.get(reverse("admin:index")).content.decode()

        assert "waiting for a decision" in content
        assert "bg-red-100" in content


class TestWhatItIsAbout:
    @pytest.mark.parametrize(
        ("body", "order", "product"),
        [
            ({"orderId": 1, "productId": ID}, ["1"], [ID]),
            ({"decisions": [{"orderId": "a"}, {"orderId": ID}]}, ["a", ID], []),
            ([[], {"orders": [{"id": ID, "productId": "p"}]}, {"chain": None}], [ID], ["p"]),
            ({"id": ID, "price": 5}, [], [ID]),
            ({"orderId": None}, ["77"], []),
            ("{", ["77"], []),
            ("[" * 100_000, ["77"], []),
        ],
    )
    def test_is_read_from_the_body_or_else_from_the_correlation_id(self, body, order, product):
        raw = body if isinstance(body, str) else json.dumps(body)

        found = subjects(raw.encode(), "order.created", "77")
        assert found == {"order": order, "product": product}

    def test_is_led_to(self, admin_client, settings, lamp):
        settings.OTHER_SERVICE = {**settings.OTHER_SERVICE, "public": "https://orders.example"}
        page = reverse(
            PAGE, args=[bury(json.dumps({"orderId": ID, "productId": str(lamp.id)}).encode()).pk]
        )
        content = admin_client.get(page).content.decode()

        assert f'href="https://orders.example/admin/orders/order/{ID}/change/"' in content
        assert f'href="/admin/products/product/{lamp.id}/change/"' in content

    def test_and_what_came_of_it_is_told(self, admin_client, lamp):
        body = json.dumps({"orders": [{"orderId": number} for number in range(2, 8)]}).encode()
        message = bury(body)
        page = reverse(PAGE, args=[message.pk])

        assert "and 1 more" in admin_client.get(page).content.decode()
        self.turn_out(message, Status.REPLAY_REQUESTED)
        assert "Not sent yet" in admin_client.get(page).content.decode()
        self.turn_out(message, Status.REPLAYED)
        assert "nothing is stored" in admin_client.get(page).content.decode()
        reserve([OrderCreated(order_id=2, product_id=lamp.id, quantity=3)])
        content = admin_client.get(page).content.decode()
        assert f'href="{reverse("admin:products_reservation_changelist")}?q=2"' in content
        assert "Stock movement -3 (order)" in content
        services.collect([letter_of(message)])
        assert "It came back 0 s ago: a field" in admin_client.get(page).content.decode()

    @staticmethod
    def turn_out(message: DeadLetter, status: str) -> None:
        DeadLetter.objects.filter(pk=message.pk).update(status=status)


class TestThePage:
    @pytest.mark.parametrize(
        ("body", "shown"),
        [
            (b'{"a":1}', "&quot;a&quot;: 1"),
            (b"\xff\x00", "ff 00"),
            (b"", "(empty)"),
            (b"<script>alert(1)</script>", "&lt;script&gt;"),
            (b"[" * 100_000, "more bytes"),
            (rb'{"orderId":"\ud800"}', r"&quot;\ud800&quot;"),
        ],
        ids=["JSON", "bytes", "empty", "markup", "large", "half a character"],
    )
    def test_shows_any_body(self, admin_client, body, shown):
        answer = admin_client.get(reverse(PAGE, args=[bury(body).pk]))

        assert shown in answer.content.decode()
        assert b"<script>alert" not in answer.content

    def test_takes_a_corrected_body(self, admin_client, admin_user):
        message = bury()
        corrected = GOOD.replace(", ", ",\r\n ")
        answer = admin_client.post(reverse(PAGE, args=[message.pk]), {"body_text": corrected})

        message.refresh_from_db()
        assert answer.status_code == 302
        assert message.current_body == corrected.replace("\r", "").encode()
        assert history(message)[-1] == ("EDITED", admin_user.username)
        assert LogEntry.objects.get().object_id == str(message.pk)

    def test_takes_no_correction_of_what_is_decided_meanwhile(self, admin_client, monkeypatch):
        message, edit = bury(), services.edit_body

        def come_too_late(*arguments: object, **facts: object) -> object:
            services.discard([message.pk], by="ada", note="a test of the vendor")
            return edit(*arguments, **facts)

        monkeypatch.setattr(services, "edit_body", come_too_late)
        page = reverse(PAGE, args=[message.pk])
        answer = admin_client.post(page, {"body_text": GOOD}, follow=True)

        message.refresh_from_db()
        assert answer.redirect_chain == [(page, 302)]
        assert [each.level_tag for each in answer.context["messages"]] == ["error"]
        assert message.edited_body is None

    def test_decides_about_none_of_which_one_is_decided_meanwhile(self, admin_client, monkeypatch):
        messages, discard = [bury(), bury(b"another")], services.discard

        def come_too_late(ids: list[int], **facts: str) -> object:
            discard(ids[:1], by="ada", note="faster")
            return discard(ids, **facts)

        monkeypatch.setattr(services, "discard", come_too_late)
        facts = {"confirmed": "1", "note": "slower"}
        answer = act_on(admin_client, "discard_selected", *messages, **facts)

        assert [each.level_tag for each in answer.context["messages"]] == ["error"]
        messages[1].refresh_from_db()
        assert messages[1].status == "WAITING"

    @pytest.mark.parametrize("button", [{}, SAVE_AND_REPLAY], ids=["Save", "Save and replay"])
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            ("{oops", "order.created: JSON is malformed"),
            ('{"orderId": 2}', "order.created: Object missing required field `productId`"),
            (GOOD.replace("2}", "0}"), "order.created: Expected `int` >= 1 - at `$.quantity`"),
        ],
    )
    def test_takes_no_body_that_its_consumer_would_not_take(
        self, admin_client, body, reason, button
    ):
        message = bury()
        page = reverse(PAGE, args=[message.pk])
        answer = admin_client.post(page, {"body_text": body, **button})

        message.refresh_from_db()
        [error] = answer.context["adminform"].form.errors["body_text"]
        assert error.startswith(reason)
        assert (message.edited_body, history(message)) == (None, [("RECEIVED", "")])

    def test_says_which_contract_that_is(self, admin_client):
        content = admin_client.get(reverse(PAGE, args=[bury().pk])).content.decode()

        assert "only if it fits the contract OrderCreated" in content
        # Its JSON Schema.
        assert "&quot;required&quot;" in content
        unknown = admin_client.get(reverse(PAGE, args=[bury(queue="unknown").pk])).content.decode()
        assert "Not checked: no consumer of this service reads the queue" in unknown

    @pytest.mark.parametrize("is_changed", [True, False])
    def test_saves_and_replays_in_one_go(self, admin_client, admin_user, is_changed):
        message = bury() if is_changed else bury(GOOD.encode())
        page = reverse(PAGE, args=[message.pk])
        assert b"Save and replay" in admin_client.get(page).content
        answer = admin_client.post(page, {"body_text": GOOD, **SAVE_AND_REPLAY}, follow=True)

        message.refresh_from_db()
        assert [str(each) for each in answer.context["messages"]] == [
            "Dead letter saved and queued for replay."
        ]
        assert (message.current_body, message.status) == (GOOD.encode(), Status.REPLAY_REQUESTED)
        steps = ["EDITED", "REPLAY_REQUESTED"] if is_changed else ["REPLAY_REQUESTED"]
        assert history(message)[1:] == [(step, admin_user.username) for step in steps]
        assert b"Save and replay" not in answer.content

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"\xff\x00", "it is not text (UTF-8)"),
            (b'"%s"' % (b"a" * 20_000), "it has 20,002 bytes, and the form takes 16,384"),
        ],
        ids=["bytes", "large"],
    )
    def test_says_why_a_body_cannot_be_edited(self, admin_client, body, why):
        message = bury(body)
        page = reverse(PAGE, args=[message.pk])
        content = admin_client.get(page).content.decode()
        admin_client.post(page, {"body_text": GOOD, **SAVE_AND_REPLAY})

        message.refresh_from_db()
        assert why in content
        assert 'name="_save"' not in content
        assert "Save and replay" not in content
        assert (message.edited_body, message.status) == (None, Status.WAITING)

    def test_says_when_no_body_would_be_accepted(self, admin_client, monkeypatch):
        events = (OrderCancelled, OrderCancelled)
        source = Subscription("product_order_queue", events, lambda _batch: Handled())
        monkeypatch.setattr(replays, "_sources", lambda: {source.queue: source})
        content = admin_client.get(reverse(PAGE, args=[bury().pk])).content.decode()

        assert "cannot be edited, since none would be accepted: neither routing key" in content

    def test_warns_who_leaves_a_correction_unsaved_and_shows_what_a_replay_sends(
        self, admin_client
    ):
        message = bury(b'{"quantity": 7}')
        page = admin_client.get(reverse(PAGE, args=[message.pk]))
        asked = admin_client.get(reverse("admin:dead_letters_deadletter_replay", args=[message.pk]))

        assert b"warn-unsaved-form" in page.content
        assert b"&quot;quantity&quot;: 7" in asked.content

    def test_saved_without_a_change_changes_nothing(self, admin_client):
        message = bury(b"not JSON")
        admin_client.post(reverse(PAGE, args=[message.pk]), {"body_text": "not JSON"})

        assert history(message) == [("RECEIVED", "")]

    def test_of_a_decided_message_is_for_reading(self, admin_client):
        message = bury()
        services.discard([message.pk], by="ada", note="a test of the vendor")
        page = reverse(PAGE, args=[message.pk])

        assert b"a test of the vendor" in admin_client.get(page).content
        assert admin_client.post(page, {"body_text": "{}"}).status_code == 403

    @pytest.mark.parametrize("page", ["add", "1/delete"])
    def test_offers_neither_to_add_nor_to_delete(self, admin_client, page):
        bury()
        answer = admin_client.get(f"{reverse(LIST)}{page}/")

        assert answer.status_code in {302, 403}


class TestDecidingAboutOne:
    def test_replays_it_in_its_readers_name(self, admin_client, admin_user):
        message = bury()
        act(admin_client, "replay", message)

        message.refresh_from_db()
        assert message.status == Status.REPLAY_REQUESTED
        assert history(message)[-1] == ("REPLAY_REQUESTED", admin_user.username)
        assert LogEntry.objects.get().user == admin_user

    def test_discards_it_with_a_note(self, admin_client):
        message = bury()
        without = act(admin_client, "discard", message)
        act(admin_client, "discard", message, note="a test of the vendor")

        message.refresh_from_db()
        assert without.status_code == 200
        assert message.status == Status.DISCARDED
        assert message.events.get(what="DISCARDED").note == "a test of the vendor"

    def test_comes_too_late_for_what_is_decided(self, admin_client):
        message = bury()
        services.discard([message.pk], by="ada", note="no use")
        act(admin_client, "replay", message)

        message.refresh_from_db()
        assert message.status == Status.DISCARDED
        assert not LogEntry.objects.exists()

    def test_is_not_for_those_who_may_only_look(self, staff):
        client, message = staff("view_deadletter"), bury()

        assert client.get(reverse(PAGE, args=[message.pk])).status_code == 200
        assert act(client, "replay", message).status_code == 403
        act_on(client, "replay_selected", message, confirmed="1")
        message.refresh_from_db()
        assert message.status == Status.WAITING


class TestDecidingAboutSeveral:
    def test_asks_first(self, admin_client):
        message = bury()
        answer = act_on(admin_client, "replay_selected", message)

        message.refresh_from_db()
        assert b"Send this message to its queue again" in answer.content
        assert message.status == Status.WAITING

    @pytest.mark.parametrize(
        ("action", "facts", "said"),
        [
            ("replay_selected", {}, "Dead letter queued for replay."),
            ("discard_selected", {"note": "no use"}, "Dead letter discarded."),
        ],
    )
    def test_speaks_of_one_as_of_one(self, admin_client, action, facts, said):
        answer = act_on(admin_client, action, bury(), confirmed="1", **facts)

        assert said in answer.content.decode()

    def test_discards_them_with_a_note(self, admin_client):
        messages = [bury(), bury()]
        asked = act_on(admin_client, "discard_selected", *messages)
        assert b"Discard 2 messages? They will" in asked.content
        without = act_on(admin_client, "discard_selected", *messages, confirmed="1", note=" ")
        assert b"This field is required" in without.content
        act_on(admin_client, "discard_selected", *messages, confirmed="1", note="no use")

        assert DeadLetter.objects.filter(status=Status.DISCARDED).count() == 2

    def test_replays_them_leaves_what_is_decided_already_and_says_so(self, admin_client):
        decided, *waiting = bury(), bury(), bury()
        services.discard([decided.pk], by="ada", note="no use")
        answer = act_on(admin_client, "replay_selected", decided, *waiting, confirmed="1")

        assert b"2 dead letters queued for replay." in answer.content
        assert b"1 dead letter left unchanged: already discarded." in answer.content
        replayed = DeadLetter.objects.filter(status=Status.REPLAY_REQUESTED)
        assert {*replayed} == {*waiting}
        assert LogEntry.objects.count() == 2

    def test_takes_only_what_the_list_shows_when_all_of_it_is_chosen(self, admin_client):
        decided, waiting = bury(), bury()
        services.discard([decided.pk], by="ada", note="no use")
        answer = act_on(admin_client, "replay_selected", waiting, select_across="1")

        assert b"Send this message to its queue again" in answer.content

    def test_says_what_would_become_of_them(self, admin_client):
        bad, good, odd = bury(), bury(GOOD.encode()), bury(queue="another_queue")
        answer = act_on(admin_client, "replay_selected", bad, good, odd)
        one = act_on(admin_client, "replay_selected", bad)

        content = answer.content.decode()
        assert "1 cannot be checked" in content
        assert "2 of 3. 1 would be accepted, 1 would be refused:" in content
        assert "1: order.created: Object missing required field" in content
        assert b"contract would refuse it: order.created: Object missing" in one.content


def address_of(client, decision: str, row: int = 0) -> str:
    """Return where a row of the page by reasons leads to."""
    rows = client.get(reverse(REASONS)).context["table"]["rows"]
    start = reverse("admin:dead_letters_deadletter_group", args=[decision])
    [address] = [each for each in rows[row][-1].split('"') if each.startswith(start)]
    return html.unescape(address)


class TestByReason:
    def test_counts_what_was_refused_alike(self, admin_client):
        bury(reason="too late by 3 s")
        bury(reason="too late by 71 s")
        bury(reason="too early")
        services.discard([bury(reason="too early").pk], by="ada", note="no use")

        rows = admin_client.get(reverse(REASONS)).context["table"]["rows"]
        assert [(row[0], ">2<" in row[3], ">1<" in row[3]) for row in rows] == [
            ("too late by … s", True, False), ("too early", False, True),
        ]  # fmt: skip
        listed = html.unescape(rows[0][3].split('"')[3])
        assert admin_client.get(listed).context["cl"].result_count == 2

    def test_says_what_would_become_of_a_group_and_replays_all_of_it(
        self, admin_client, admin_user, monkeypatch
    ):
        monkeypatch.setattr(actions, "MAX_SELECTED", 2)
        alike = [bury(), *(bury(GOOD.encode()) for _ in range(3))]
        address = address_of(admin_client, "replay")
        newcomer = bury()
        asked = admin_client.get(address).content.decode()
        answer = admin_client.post(address, {"confirmed": "1"}, follow=True)

        assert "Send 4 messages with “a field is missing” to product_order_queue again?" in asked
        assert "Each worker sends at most 50 per second" in asked
        assert "4 of 4. 3 would be accepted, 1 would be refused:" in asked
        assert b"4 dead letters queued for replay." in answer.content
        assert {*DeadLetter.objects.filter(status=Status.REPLAY_REQUESTED)} == {*alike}
        assert {history(each)[-1] for each in alike} == {("REPLAY_REQUESTED", admin_user.username)}
        newcomer.refresh_from_db()
        assert newcomer.status == Status.WAITING
        again = admin_client.post(address, {"confirmed": "1"}, follow=True)
        assert b"No message of this group waits any more." in again.content

    def test_says_how_far_it_has_looked(self, admin_client, monkeypatch):
        monkeypatch.setattr(replays, "REHEARSED", 2)
        for _ in range(3):
            bury(GOOD.encode())

        assert (
            b"2 of 3. 2 would be accepted"
            in admin_client.get(address_of(admin_client, "replay")).content
        )

    def test_discards_a_group_with_a_note(self, admin_client):
        for _ in range(3):
            bury()
        address = address_of(admin_client, "discard")
        without = admin_client.post(address, {"confirmed": "1", "note": " "})
        assert b"This field is required" in without.content
        answer = admin_client.post(address, {"confirmed": "1", "note": "a test"}, follow=True)

        assert b"3 dead letters discarded." in answer.content
        assert {each.events.get(what="DISCARDED").note for each in DeadLetter.objects.all()} == {
            "a test"
        }

    @pytest.mark.parametrize(
        "address",
        [
            "replay/",
            "replay/?queue=a&up_to=-1",
            "replay/?queue=%00&up_to=1",
            "eat/?queue=a&up_to=1",
        ],
    )
    def test_knows_no_other_addresses(self, admin_client, address):
        assert admin_client.get(reverse(REASONS) + address).status_code == 404

    def test_is_for_reading_to_those_who_may_only_look(self, admin_client, staff):
        bury()
        address, client = address_of(admin_client, "replay"), staff("view_deadletter")

        assert client.get(reverse(REASONS)).context["table"]["rows"][0][-1] == ""
        assert client.post(address, {"confirmed": "1"}).status_code == 403


@pytest.mark.django_db(transaction=True)
class TestTheOutbox:
    LIST = "admin:outbox_outgoingevent_changelist"

    @staticmethod
    def events(*minutes: int) -> list[OutgoingEvent]:
        """Record events that are tried next in so many minutes."""
        for number, each in enumerate(minutes):
            with transaction.atomic():
                event = OrderCancelled(order_id=number, product_id=UUID(int=1), quantity=1)
                OutgoingEvent.objects.record([event])
                OutgoingEvent.objects.filter(correlation_id=str(number)).update(
                    attempts=each, last_outcome="returned",
                    available_at=timezone.now() + timedelta(minutes=each),
                )  # fmt: skip
        return list(OutgoingEvent.objects.order_by("id"))

    def test_says_what_was_said_to_an_event_and_when_it_is_tried_next(self, admin_client):
        self.events(4)
        content = admin_client.get(reverse(self.LIST)).content.decode()

        for expected in ("attempts", "returned", "next attempt", "in 4 min", "Try now"):
            assert expected.casefold() in content.casefold()

    def test_tries_events_now_and_says_which_not(self, admin_client):
        due, pausing, gone = self.events(0, 4, 5)
        chosen = [str(each.pk) for each in (due, pausing, gone)]
        gone.delete()
        facts = {"action": "try_selected_now", "_selected_action": chosen, "confirmed": "1"}
        answer = admin_client.post(reverse(self.LIST), facts, follow=True)

        assert {str(each) for each in answer.context["messages"]} == {
            "Event in the outbox handed to the relay.",
            "1 event in the outbox left unchanged: tried within 30 seconds anyway.",
            "1 event in the outbox left unchanged: published meanwhile.",
        }
        pausing.refresh_from_db()
        assert pausing.available_at <= timezone.now()

    def test_tries_one_from_its_row_and_leads_back_to_the_list(self, admin_client):
        [event] = self.events(4)
        address = reverse("admin:outbox_outgoingevent_try_now", args=[event.pk])
        assert b"Publish this event now" in admin_client.get(address).content
        answer = admin_client.post(address, {"confirmed": "1"}, follow=True)
        assert b"handed to the relay" in answer.content
        event.delete()

        assert b"published already" in admin_client.get(address, follow=True).content

    def test_is_for_reading_to_those_who_may_only_look(self, staff):
        client, [event] = staff("view_outgoingevent"), self.events(4)
        address = reverse("admin:outbox_outgoingevent_try_now", args=[event.pk])

        assert b"Try now" not in client.get(reverse(self.LIST)).content
        assert client.post(address, {"confirmed": "1"}).status_code == 403
