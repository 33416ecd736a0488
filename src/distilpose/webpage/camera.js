// Take an image with the camera.

export function setUpCamera({ button, dialog, taken, failed }) {
  const video = dialog.querySelector("video");
  const shoot = dialog.querySelector("#shoot");
  let stream = null;

  function stop() {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.srcObject = null;
  }

  button.addEventListener("click", async () => {
    if (!navigator.mediaDevices?.getUserMedia) {
      failed("Browsers give the camera only to pages of this machine (localhost) or under https: open the page there.");
      return;
    }
    button.disabled = true; // a second click would open a second stream
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
      shoot.disabled = true;
      dialog.showModal();
      video.srcObject = stream;
      await video.play();
      shoot.disabled = false;
    } catch (error) {
      stop();
      dialog.close();
      const reason = error.name === "NotAllowedError" ? "The camera was not allowed" : "There is no camera";
      failed(`${reason}: allow or connect one, or choose an image.`);
    } finally {
      button.disabled = false;
    }
  });
  shoot.addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    dialog.close();
    canvas.toBlob((blob) => taken(blob), "image/jpeg", 0.92);
  });
  dialog.querySelector("#close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", stop);
}
