// Camera and microphone: opened only when the user presses the button, and closed right after the recording.
import { useEffect, useRef, useState } from "preact/hooks";
import { still } from "./media";
import { t } from "./texts";

const LONGEST_MS = 30_000;

type Props = { taken: (file: File) => void; failed: (why: string) => void };

export function Camera({ taken, failed }: Props) {
  const [stream, setStream] = useState<MediaStream | null>(null);
  const [shows, setShows] = useState(false);
  const video = useRef<HTMLVideoElement>(null);
  useEffect(() => {
    if (video.current && stream) video.current.srcObject = stream;
    return () => stream?.getTracks().forEach((track) => track.stop());
  }, [stream]);
  const open = () => media({ video: { facingMode: "environment" } }).then(setStream, () => failed(t.camera.unusable));
  const shoot = async () => {
    const { videoWidth, videoHeight } = video.current!;
    try {
      const blob = await still(video.current!, videoWidth, videoHeight);
      taken(new File([blob], "camera.jpg", { type: "image/jpeg" }));
    } catch {
      failed(t.camera.noPicture);
    }
    close();
  };
  const close = () => {
    setStream(null);
    setShows(false);
  };
  if (!stream)
    return (
      <button type="button" onClick={open}>
        {t.camera.use}
      </button>
    );
  return (
    <div class="camera">
      <video ref={video} autoPlay playsInline muted aria-label={t.camera.sees} onLoadedData={() => setShows(true)} />
      <button type="button" class="primary" disabled={!shows} onClick={shoot}>
        {t.camera.take}
      </button>
      <button type="button" onClick={close}>
        {t.camera.cancel}
      </button>
    </div>
  );
}

export function Microphone({ taken, failed }: Props) {
  const [recorder, setRecorder] = useState<MediaRecorder | null>(null);
  useEffect(
    () => () => {
      if (recorder?.state !== "recording") return; // the user has switched to another task
      recorder.onstop = null;
      recorder.stop();
      recorder.stream.getTracks().forEach((track) => track.stop());
    },
    [recorder],
  );
  const record = async () => {
    try {
      const stream = await media({ audio: true });
      const made = new MediaRecorder(stream);
      const parts: Blob[] = [];
      made.ondataavailable = ({ data }) => parts.push(data);
      made.onstop = () => {
        stream.getTracks().forEach((track) => track.stop());
        setRecorder(null);
        taken(new File(parts, "recording", { type: made.mimeType }));
      };
      made.start();
      setTimeout(() => made.state === "recording" && made.stop(), LONGEST_MS);
      setRecorder(made);
    } catch {
      failed(t.camera.noMicrophone);
    }
  };
  return recorder ? (
    <button type="button" class="primary" onClick={() => recorder.stop()}>
      {t.camera.stop}
    </button>
  ) : (
    <button type="button" onClick={record}>
      {t.camera.record}
    </button>
  );
}

/** Browsers allow camera and microphone only for pages on this machine or over HTTPS. */
function media(wanted: MediaStreamConstraints): Promise<MediaStream> {
  if (!navigator.mediaDevices) return Promise.reject(new Error("not a secure page"));
  return navigator.mediaDevices.getUserMedia(wanted);
}
